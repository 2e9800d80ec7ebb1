-- Puts messages back to the front of their queues, unless somebody else has settled them by now.
-- KEYS: unacked, unacked_index, then the lists of the messages, one after the other.
-- ARGV: for each message its tag, the lease that it must still have (empty: any), its envelope, and how many
--       of the lists are its.
-- Returns how many went back.
local unacked, index = KEYS[1], KEYS[2]
local lists, restored, failed = 3, 0, nil

-- A write that needs no memory opens the way for those that do (see take.lua).
redis.call('ZREM', index, '')
for at = 1, #ARGV, 4 do
  local tag, lease, envelope, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  if redis.call('HEXISTS', unacked, tag) == 0 then
    redis.call('ZREM', index, tag)
  elseif lease == '' or redis.call('ZSCORE', index, tag) == lease then
    local pushed = count > 0
    for list = lists, lists + count - 1 do
      local reply = redis.pcall('RPUSH', KEYS[list], envelope)
      if type(reply) == 'table' and reply.err then
        failed, pushed = failed or reply, false
      end
    end
    if pushed then
      redis.call('HDEL', unacked, tag)
      redis.call('ZREM', index, tag)
      restored = restored + 1
    end
  end
  lists = lists + count
end
return failed or restored
