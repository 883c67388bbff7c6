-- Note a node's change of health, and tell everybody.
--
-- KEYS[1]: the HASH of all nodes' health, and the channel's name. ARGV: the command to publish by,
-- the node's id, what to note (JSON), when it happened (it may have waited in a queue since), how
-- long to remember it, how many nodes there may be at most.
-- Returns "ok", when it happened, the epoch, which is another one when the HASH has begun again, and
-- why it was not published, if so; or "old", the time and what is known that happened later. Times
-- are microseconds of the server's clock.

local SCHEMA = '1'
local LONGEST = 8192

local key, publish, id, note = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local at = math.min(tonumber(ARGV[4]), now)
local ttl, most = tonumber(ARGV[5]), tonumber(ARGV[6])

-- Forget what is over or unreadable, then what is oldest, down to three quarters of the most.
local function make_room()
  local entries = {}
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if field ~= 'v' and field ~= 'e' and field ~= 'changed' then
      local stored = redis.call('HSTRLEN', key, field) <= LONGEST and redis.call('HGET', key, field)
      local when = stored and tonumber(string.match(stored, '^(%d+) '))
      if when and when <= now and when + ttl > now and string.sub(field, 1, 2) == 'n:' then
        entries[#entries + 1] = { when, field }
      else
        redis.call('HDEL', key, field)
      end
    end
  end
  table.sort(entries, function(one, other) return one[1] < other[1] end)
  for i = 1, #entries - math.floor(most * 3 / 4) do
    redis.call('HDEL', key, entries[i][2])
  end
end

local kind = redis.call('TYPE', key)['ok']
if kind ~= 'hash' and kind ~= 'none' then
  return { 'foreign', 'a ' .. kind .. ' instead of a hash' }
end
if kind == 'hash' and (redis.call('HSTRLEN', key, 'v') > 16 or redis.call('HGET', key, 'v') ~= SCHEMA) then
  return { 'foreign', 'not of schema ' .. SCHEMA }
end

local field = 'n:' .. id
local size = redis.call('HLEN', key)
if size > 10 * most then
  return { 'foreign', 'of ' .. size .. ' fields' }
end
if size >= most and redis.call('HEXISTS', key, field) == 0 then
  make_room()
end
if redis.call('HSTRLEN', key, field) <= LONGEST then
  local stored = redis.call('HGET', key, field)
  local when = stored and tonumber(string.match(stored, '^(%d+) '))
  -- What claims to come from the future gives way.
  if when and when > at and when <= now then
    return { 'old', string.format('%.0f', now), stored }
  end
end

local epoch = redis.call('HSTRLEN', key, 'e') <= 20 and redis.call('HGET', key, 'e')
if not (epoch and string.match(epoch, '^%d+$')) then
  epoch = string.format('%.0f', now)
end
local entry = string.format('%.0f', at) .. ' ' .. note
local changed = string.format('%.0f', now)
redis.call('HSET', key, 'v', SCHEMA, 'e', epoch, 'changed', changed, field, entry)
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(ttl / 1000)))
-- A user who may not, or a server that cannot: others see it when they look next.
local told = redis.pcall(publish, key, string.format('%.0f', now) .. ' ' .. entry)
return { 'ok', string.format('%.0f', at), epoch, type(told) == 'table' and told['err'] or '' }
