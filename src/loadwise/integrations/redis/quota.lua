-- The quota of one node, in all its dimensions, counted in buckets that slide.
--
-- KEYS[1]: the node's HASH. ARGV[1]: what is asked, in JSON:
--   op     "acquire" (all dimensions or none), "take" (what there is) or "sync" (nothing)
--   epoch  the epoch that the asker's use was counted in, or "" if it has none
--   fresh  the epoch to begin if there is none
--   lift   end a rest that was begun before
--   rest   have the node sit out so long
--   lease  how long what is taken may be used
--   dims   by dimension: name, limit, window, width, amount, need (the room there must be for it),
--          due (what other calls of the asker are about to charge: not to be granted either),
--          back (pairs of bucket and amount to give back), add (pairs of age and amount to charge)
-- Returns status, epoch, time, end of rest, fields dropped, and per dimension the amount granted,
-- its bucket, and all buckets. Times are whole microseconds of the server's clock. The end of a rest
-- that was lifted is negative: the time of that.
--
-- A bucket takes in use for `width` and is forgotten whole `window` after its last use.

local SCHEMA = '1'
local EXACT = 9007199254740992 -- 2^53: whole numbers up to here are exact
local LONGEST = 131072 -- of a dimension's buckets, in bytes
local LONGEST_REST = 30 * 24 * 3600 * 1000000

local key = KEYS[1]
local ask = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local dropped = 0
local changed = false

local function whole(value)
  return string.format('%.0f', value)
end

local function number(text)
  local value = tonumber(text)
  if value and value >= 0 and value <= EXACT then return value end -- not so for NaN
end

local function read(field, longest)
  if redis.call('HSTRLEN', key, field) > longest then
    dropped = dropped + 1
    return nil
  end
  return redis.call('HGET', key, field) or nil
end

local function parse(text, dim)
  local buckets = {}
  for part in string.gmatch(text or '', '[^;]+') do
    local id, closes, last, amount = string.match(part, '^(%d+),(%d+),(%d+),([%d.e+-]+)$')
    local bucket = { id = number(id), closes = number(closes), last = number(last), amount = number(amount) }
    if bucket.id and bucket.closes and bucket.last and bucket.amount then
      -- The clock of the server may have been set back.
      if bucket.closes > now + dim.width or bucket.last > now + dim.window then
        bucket.closes = math.min(bucket.closes, now + dim.width)
        bucket.last = math.min(bucket.last, now + dim.window)
        changed = true
      end
      if bucket.last + dim.window > now then
        buckets[#buckets + 1] = bucket
      end
    else
      dropped = dropped + 1
    end
  end
  return buckets
end

local function charge(buckets, amount, at, dim)
  local found
  local latest = 0
  for _, bucket in ipairs(buckets) do
    latest = math.max(latest, bucket.id)
    if at >= now then
      if now < bucket.closes then
        found = bucket
      end
    elseif not found and bucket.last >= at and bucket.last < at + dim.width then
      found = bucket
    end
  end
  if not found then
    -- Times make ids that are not used again, so that what is given back late harms no other.
    found = { id = math.max(now, latest + 1), closes = now + dim.width, last = at, amount = 0 }
    if at < now then
      found.closes = at -- so that it takes in no use of today
    end
    buckets[#buckets + 1] = found
  end
  found.amount = math.min(found.amount + amount, EXACT)
  found.last = math.max(found.last, at)
  return found
end

local function used(buckets)
  local sum = 0
  for _, bucket in ipairs(buckets) do sum = sum + bucket.amount end
  return sum
end

local kind = redis.call('TYPE', key)['ok']
if kind ~= 'hash' and kind ~= 'none' then
  return { 'foreign', 'a ' .. kind .. ' instead of a hash' }
end
if kind == 'hash' and read('v', 16) ~= SCHEMA then
  return { 'foreign', 'not of schema ' .. SCHEMA }
end

local epoch = read('e', 32)
if epoch and not string.match(epoch, '^%x+$') then
  dropped = dropped + 1
  epoch = nil
end
if ask.epoch ~= '' and ask.epoch ~= epoch then
  return { 'lost', epoch or '' }
end

local text = read('rest', 20) or '0'
local lifted = string.sub(text, 1, 1) == '-'
local rest = number(lifted and string.sub(text, 2) or text)
if not rest or rest > now + LONGEST_REST then
  dropped = dropped + 1
  rest = 0
elseif lifted then
  rest = -rest
end
changed = dropped > 0
if ask.lift then
  rest = -now
  changed = true
end
if ask.rest > 0 then
  rest = math.max(rest, now + math.min(ask.rest, LONGEST_REST))
  changed = true
end

local fits = rest <= now
for _, dim in ipairs(ask.dims) do
  local before = dropped
  dim.buckets = parse(read('d:' .. dim.name, LONGEST), dim)
  changed = changed or dropped > before
  for _, pair in ipairs(dim.back) do
    for _, bucket in ipairs(dim.buckets) do
      if bucket.id == pair[1] then
        bucket.amount = math.max(0, bucket.amount - pair[2])
        changed = true
      end
    end
  end
  for _, pair in ipairs(dim.add) do
    local at = math.floor(now - pair[1])
    if at + dim.window > now then
      charge(dim.buckets, pair[2], at, dim)
      changed = true
    end
  end
  if used(dim.buckets) + dim.due + dim.need > dim.limit then
    fits = fits and ask.op ~= 'acquire'
  end
end

local granted = fits and ask.op ~= 'sync'
if granted then
  for _, dim in ipairs(ask.dims) do
    local at = now
    if ask.op == 'take' then
      dim.amount = math.min(dim.amount, math.max(0, dim.limit - dim.due - used(dim.buckets)))
      at = now + ask.lease
    end
    if dim.amount > 0 then
      dim.granted = charge(dim.buckets, dim.amount, at, dim)
      changed = true
    end
  end
end

local latest = math.max(rest, now)
local texts = {}
for i, dim in ipairs(ask.dims) do
  table.sort(dim.buckets, function(a, b) return a.last < b.last end)
  local parts = {}
  for j, bucket in ipairs(dim.buckets) do
    parts[j] = whole(bucket.id) .. ',' .. whole(bucket.closes) .. ',' .. whole(bucket.last)
      .. ',' .. string.format('%.17g', bucket.amount)
    latest = math.max(latest, bucket.last + dim.window)
  end
  texts[i] = table.concat(parts, ';')
end

if changed then
  epoch = epoch or ask.fresh
  local fields = { 'v', SCHEMA, 'e', epoch, 'rest', whole(rest) }
  for i, dim in ipairs(ask.dims) do
    fields[#fields + 1] = 'd:' .. dim.name
    fields[#fields + 1] = texts[i]
  end
  redis.call('HSET', key, unpack(fields))
  -- Others may count dimensions with longer windows under the same key.
  local expiry = math.ceil((latest - now) / 1000) + 1000
  if expiry > redis.call('PTTL', key) then
    redis.call('PEXPIRE', key, whole(expiry))
  end
end

local status = ask.op == 'acquire' and not fits and 'full' or 'ok'
local reply = { status, epoch or '', whole(now), whole(rest), whole(dropped) }
for i, dim in ipairs(ask.dims) do
  reply[#reply + 1] = dim.granted and string.format('%.17g', dim.amount) or '0'
  reply[#reply + 1] = dim.granted and whole(dim.granted.id) or ''
  reply[#reply + 1] = texts[i]
end
return reply
