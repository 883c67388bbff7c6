-- Note a node's change of health, and tell everybody.
--
-- KEYS[1]: the HASH of all nodes' health. ARGV: the channel, the node's id, what to note (JSON),
-- when it happened (it may have waited in a queue since), how long to remember it.
-- Returns "ok", when it happened and the epoch, which is another one when the HASH has begun anew;
-- or "old", the time and what is known that happened later. Times are microseconds of the server's
-- clock.

local SCHEMA = '1'
local LONGEST = 8192

local key, channel, id, note = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local at = math.min(tonumber(ARGV[4]), now)

local kind = redis.call('TYPE', key)['ok']
if kind ~= 'hash' and kind ~= 'none' then
  return { 'foreign', 'a ' .. kind .. ' instead of a hash' }
end
if kind == 'hash' and (redis.call('HSTRLEN', key, 'v') > 16 or redis.call('HGET', key, 'v') ~= SCHEMA) then
  return { 'foreign', 'not of schema ' .. SCHEMA }
end

local field = 'n:' .. id
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
redis.call('PEXPIRE', key, string.format('%.0f', math.ceil(tonumber(ARGV[5]) / 1000)))
redis.call('PUBLISH', channel, string.format('%.0f', now) .. ' ' .. entry)
return { 'ok', string.format('%.0f', at), epoch }
