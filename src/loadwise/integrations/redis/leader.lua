-- Makes one of several processes the leader, or gives that up.
-- KEYS[1]: who leads. ARGV: this process's token, milliseconds to lead; 0 to give it up.
-- Returns 1 if this process leads now.
local leads = redis.call('GET', KEYS[1])
local mine = leads == ARGV[1]
if ARGV[2] == '0' then
  if mine then redis.call('DEL', KEYS[1]) end
  return 0
end
if leads and not mine then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
