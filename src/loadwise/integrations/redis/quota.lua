-- The quota of one node, in one HASH. Each account (one per process) states what it has used, in
-- absolute numbers, so a message that is lost, repeated or overtaken leaves nothing wrong behind.
--
-- KEYS[1]: the HASH. ARGV[1], JSON: who (account), seq (number of its call), open (its calls under
-- way), news (of the cooldown: number, whether it ends older ones, its end or 0), op ("acquire": all
-- dimensions or none; "take": what there is; "sync": nothing), ahead (what is granted counts as used
-- so long after now), marks (whether to remember its number in any case), dims (name, limit, window,
-- width, amount, need: the room it takes, used).
-- Returns JSON: status, now, rest (end of the cooldown), dropped (fields), known (whether the account
-- was), dims (granted, others: what all other accounts have used). Amounts are given by bucket. A
-- bucket is named by its end on the server's clock in microseconds, a multiple of `width`, and
-- forgotten `window` later.
-- Fields: v (schema), rest, scan, d:NAME (sums of all accounts), a:WHO (seq, open, news, gone: when
-- it is of no use, used: what it has stated, granted: by call, what it has not stated yet).
local SCHEMA, EXACT, LONGEST = '2', 9007199254740992, 131072
local LONGEST_REST, FAR = 30 * 24 * 3600 * 1000000, 5 * 1000000
local key, ask = KEYS[1], cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local dropped, writes, latest = 0, ask.marks, now

local function whole(value) return string.format('%.0f', value) end
local function map(value) return type(value) == 'table' and value or {} end

local function number(value, most)
  local found = tonumber(value)
  if found and found >= 0 and found <= (most or EXACT) then return found end
  dropped = dropped + 1
end

local function read_map(text)
  local fine, found = pcall(cjson.decode, text and #text <= LONGEST and text)
  if fine and type(found) == 'table' then return found end
  if text then dropped = dropped + 1 end
  return {}
end

-- What counts, by bucket. Ends far ahead, of a clock that was set back, are drawn in or left out.
local function buckets(given, dim, draw_in)
  local found, far = {}, now + dim.window + FAR
  for at, amount in pairs(map(given)) do
    local ends, much = number(string.match(at, '^%d+$')), number(amount)
    if ends and ends > far then
      at, ends, writes = whole(far), draw_in and far, writes or draw_in
    end
    if ends and much and ends + dim.window > now then
      found[at] = (found[at] or 0) + much
      latest = math.max(latest, ends + dim.window)
    end
  end
  return found
end

local function add(amounts, at, amount)
  amounts[at] = math.min(math.max((amounts[at] or 0) + amount, 0), EXACT)
end

-- Amounts as JSON keeps them: of a number it keeps 14 digits.
local function texts(amounts)
  local found = {}
  for at, amount in pairs(amounts) do
    local short = amount % 1 == 0 and amount < 1e14
    if amount > 0 then found[at] = short and amount or string.format('%.17g', amount) end
  end
  return found
end

local kind, me, call = redis.call('TYPE', key)['ok'], 'a:' .. ask.who, whole(ask.seq)
local names = { 'v', 'rest', 'scan', me }
for _, dim in ipairs(ask.dims) do names[#names + 1] = 'd:' .. dim.name end
local held = kind == 'hash' and redis.call('HMGET', key, unpack(names)) or {}
if kind ~= 'none' and held[1] ~= SCHEMA then
  local detail = kind == 'hash' and 'schema ' .. string.sub(held[1] or '?', 1, 16) or kind
  return cjson.encode({ status = 'foreign', detail = detail })
end

local account, known = read_map(held[4]), held[4] and true or false
local seq, heard = number(account.seq or 0) or 0, number(account.news or 0) or 0
local open, granted = map(account.open), map(account.granted)
local fresh = ask.seq > seq
local stale = not fresh and not open[call] -- it is over for whoever made it
if fresh then
  seq, open = ask.seq, {}
  for _, each in ipairs(ask.open) do open[whole(each)] = true end
end

local rest = number(held[2] or 0, now + LONGEST_REST) or 0
writes = writes or known or ask.news[1] > heard
if ask.news[1] > heard then
  rest = math.max(ask.news[2] and 0 or rest, math.min(ask.news[3], now + LONGEST_REST))
  heard = ask.news[1]
end

local fits, used = rest <= now and not stale, {}
for i, dim in ipairs(ask.dims) do
  dim.sums = buckets(read_map(held[4 + i]), dim, true)
  dim.mine = buckets(map(account.used)[dim.name], dim)
  for at, amount in pairs(fresh and buckets(dim.used, dim) or {}) do
    add(dim.sums, at, amount - (dim.mine[at] or 0))
    dim.mine[at], writes = amount, true
  end
  used[dim.name] = texts(dim.mine)
  for id, grant in pairs(granted) do
    for at, amount in pairs(buckets(map(grant)[dim.name], dim)) do
      -- Of a call that is over it is in what the account states; else nobody has heard of it.
      if fresh and not open[id] then add(dim.sums, at, -amount) else add(dim.mine, at, amount) end
    end
  end
  dim.total = 0
  for _, amount in pairs(dim.sums) do dim.total = dim.total + amount end
  fits = fits and (ask.op ~= 'acquire' or dim.total + dim.need <= dim.limit)
end
for id in pairs(granted) do
  if fresh and not open[id] then granted[id] = nil end
end

local grant = granted[call] -- if the call is repeated
if fits and not grant and ask.op ~= 'sync' then
  grant, writes = {}, true
  for _, dim in ipairs(ask.dims) do
    local ends = (math.floor((now + ask.ahead) / dim.width) + 1) * dim.width
    local room = ask.op == 'take' and dim.limit - dim.total - dim.need or dim.amount
    local at, amount = whole(ends), math.max(0, math.min(dim.amount, room))
    add(dim.sums, at, amount)
    add(dim.mine, at, amount)
    grant[dim.name] = texts({ [at] = amount })
    if amount > 0 then latest = math.max(latest, ends + dim.window) end
  end
  granted[call] = grant
end

if writes or dropped > 0 then
  local gone = now + FAR
  local fields = { 'v', SCHEMA, 'rest', whole(rest) }
  local function set(field, value)
    fields[#fields + 1], fields[#fields + 2] = field, value
  end
  for _, dim in ipairs(ask.dims) do
    set('d:' .. dim.name, cjson.encode(texts(dim.sums)))
    gone = math.max(gone, now + 2 * dim.window + FAR)
  end
  local record = { gone = whole(gone), seq = seq, open = open, news = heard, used = used, granted = granted }
  set(me, cjson.encode(record))
  if not known then -- of those that are gone, as many go as can ever come
    local cursor = string.match(held[3] or '', '^%d+$') or '0'
    local page = redis.call('HSCAN', key, #cursor < 20 and cursor or '0', 'MATCH', 'a:*')
    set('scan', page[1])
    for i = 1, #page[2], 2 do
      local ends = tonumber(string.match(page[2][i + 1], '"gone":"(%d+)"') or 0)
      if ends <= now then redis.call('HDEL', key, page[2][i]) end
    end
  end
  redis.call('HSET', key, unpack(fields))
  -- Others may count dimensions with longer windows under the same key.
  latest = math.max(latest, rest, ask.marks and gone or 0)
  local expiry = math.ceil((latest - now) / 1000) + 1000
  if expiry > redis.call('PTTL', key) then redis.call('PEXPIRE', key, whole(expiry)) end
end

local status = (grant or fits) and 'ok' or stale and 'stale' or 'full'
local reply = { status = status, now = whole(now), rest = whole(rest), dropped = dropped, known = known, dims = {} }
for i, dim in ipairs(ask.dims) do
  for at, amount in pairs(dim.mine) do add(dim.sums, at, -amount) end
  reply.dims[i] = { granted = grant and grant[dim.name] or {}, others = texts(dim.sums) }
end
return cjson.encode(reply)
