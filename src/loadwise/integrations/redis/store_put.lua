-- Store a value in a HASH that expires some time after the last one was stored.
--
-- KEYS[1]: the HASH. ARGV: the field, the value, the time in milliseconds.

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
