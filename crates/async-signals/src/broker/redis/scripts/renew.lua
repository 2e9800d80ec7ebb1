-- Gives a sign of life, renews leases, and tells who and what needs restoring.
-- KEYS: unacked_index, the workers, the generations.
-- ARGV: the worker, its generation, after how many milliseconds a worker is called silent, after how many
--       seconds a lease has expired, how many expired leases to tell of, then the tags that the worker holds.
-- Returns the silent workers, each with its last sign of life; and expired tags, each with its lease.
local index, workers, generations = KEYS[1], KEYS[2], KEYS[3]
local worker, generation = ARGV[1], ARGV[2]
local HELD, CHUNK = 6, 1000

if redis.call('HGET', generations, worker) ~= generation then
  return redis.error_reply('SIGNEDOFF a later connection took over, or the others took this worker for dead')
end
-- A write that needs no memory opens the way for those that do (see take.lua).
redis.call('ZREM', index, '')
local seconds, micros = unpack(redis.call('TIME'))
local now = seconds * 1000 + math.floor(micros / 1000)
redis.call('ZADD', workers, string.format('%.0f', now), worker)

for first = HELD, #ARGV, CHUNK do
  local leases = {}
  for at = first, math.min(first + CHUNK - 1, #ARGV) do
    leases[#leases + 1], leases[#leases + 2] = seconds + 1, ARGV[at]
  end
  -- What is not there any more was restored by somebody else, and stays theirs.
  redis.call('ZADD', index, 'XX', unpack(leases))
end

local silent =
  redis.call('ZRANGEBYSCORE', workers, '-inf', string.format('(%.0f', now - ARGV[3]), 'WITHSCORES', 'LIMIT', 0, 100)
local old = redis.call(
  'ZRANGEBYSCORE', index, '-inf', string.format('(%.3f', now / 1000 - ARGV[4]), 'WITHSCORES', 'LIMIT', 0, ARGV[5])
local expired = {}
for at = 1, #old, 2 do
  -- A worker of ours loses what it holds by its silence alone, however short the visibility timeout is.
  local owner = string.match(old[at], '^([^.]+)%.%d+%.%d+$')
  if not (owner and redis.call('ZSCORE', workers, owner)) then
    expired[#expired + 1], expired[#expired + 2] = old[at], old[at + 1]
  end
end
return {silent, expired}
