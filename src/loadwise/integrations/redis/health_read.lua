-- Read what is known of all nodes' health, if it has changed.
--
-- KEYS[1]: the HASH of all nodes' health. ARGV: what `changed` was when last read ("" at first),
-- how long what happened is remembered, how many nodes there may be at most.
-- Returns "full", the time and why, if there are more, for which the next news makes room; else "ok",
-- `changed`, the time, the number of fields dropped, the epoch ("" if there is none: see health_put)
-- and, if anything has changed, all entries. Times are microseconds of the server's clock.

local SCHEMA = '1'
local LONGEST = 8192
local SKEW = 60 * 1000000 -- by which the server's clock may have been set back

local key = KEYS[1]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local kind = redis.call('TYPE', key)['ok']
if kind == 'none' then
  return { 'ok', '', string.format('%.0f', now), '0', '' }
end
if kind ~= 'hash' then
  return { 'foreign', 'a ' .. kind .. ' instead of a hash' }
end
if redis.call('HSTRLEN', key, 'v') > 16 or redis.call('HGET', key, 'v') ~= SCHEMA then
  return { 'foreign', 'not of schema ' .. SCHEMA }
end
if redis.call('HLEN', key) > tonumber(ARGV[3]) then
  return { 'full', string.format('%.0f', now), 'of ' .. redis.call('HLEN', key) .. ' fields' }
end

local changed = redis.call('HSTRLEN', key, 'changed') <= 20 and redis.call('HGET', key, 'changed')
changed = changed or 'unknown'
local epoch = redis.call('HSTRLEN', key, 'e') <= 20 and redis.call('HGET', key, 'e')
epoch = epoch and string.match(epoch, '^%d+$') or ''
local reply = { 'ok', changed, string.format('%.0f', now), '0', epoch }
if changed == ARGV[1] then
  return reply
end

local dropped = 0
for _, field in ipairs(redis.call('HKEYS', key)) do
  if string.sub(field, 1, 2) == 'n:' then
    local entry
    if redis.call('HSTRLEN', key, field) <= LONGEST then
      entry = redis.call('HGET', key, field)
    end
    local at = entry and tonumber(string.match(entry, '^(%d+) '))
    if not at or at > now + SKEW then
      dropped = dropped + 1
      redis.call('HDEL', key, field)
    elseif at + tonumber(ARGV[2]) <= now then
      redis.call('HDEL', key, field)
    else
      reply[#reply + 1] = entry
    end
  end
end
reply[4] = string.format('%.0f', dropped)
return reply
