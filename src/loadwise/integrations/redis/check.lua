-- Prove that scripts run here and may write to a key, and leave it as it is.
--
-- KEYS[1]: the key, a HASH if it exists. Returns "ok"; what stands against it is raised.

local FIELD = 'loadwise:check'

local key = KEYS[1]
local kind = redis.call('TYPE', key)['ok']
if kind == 'hash' or kind == 'none' then
  redis.call('HSET', key, FIELD, '')
  redis.call('HDEL', key, FIELD)
end
return 'ok'
