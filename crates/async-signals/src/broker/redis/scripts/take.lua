-- Acknowledges messages, then takes others out of their queues and records them as kombu does, in one step.
-- KEYS: unacked, unacked_index, the generations, then the lists: all of one queue's together, in the order in
--       which they are served.
-- ARGV: the worker, its generation, the number before its first tag, how many messages at most, how many lists
--       a queue has, how many queues, for each of them what ends the record of a message of it, and the tags
--       to acknowledge.
-- Returns pairs: which of the queues, its messages; their tags are numbered through.
local unacked, index, generations = KEYS[1], KEYS[2], KEYS[3]
local worker, generation, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local left, steps, queues = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local ENDS = 6
local tag = worker .. '.' .. generation .. '.'
-- Twice as many values fit on Lua's stack together.
local CHUNK = 1000

for first = ENDS + queues + 1, #ARGV, CHUNK do
  local last = math.min(first + CHUNK - 1, #ARGV)
  redis.call('ZREM', index, unpack(ARGV, first, last))
  redis.call('HDEL', unacked, unpack(ARGV, first, last))
end
if redis.call('HGET', generations, worker) ~= generation then
  return redis.error_reply('SIGNEDOFF a later connection took over, or the others took this worker for dead')
end
-- A write that needs no memory. After it those that do are let through, even where memory is full: a worker
-- must be able to take then more than ever, since it is the one to empty the queues.
redis.call('ZREM', index, '')
-- Rounded up: no lease looks older than it is.
local now = redis.call('TIME')[1] + 1
local taken, failed = {}, nil

-- Takes from one queue, and returns how many.
local function take(queue, most)
  local wanted = most
  for step = 1, steps do
    local list = KEYS[3 + (queue - 1) * steps + step]
    while wanted > 0 do
      local found = redis.pcall('LRANGE', list, -math.min(wanted, CHUNK), -1)
      if found.err then
        failed = failed or found
        break
      end
      local count = #found
      if count == 0 then break end
      local records, leases, messages = {}, {}, {}
      for oldest = count, 1, -1 do
        number = number + 1
        local name, at = tag .. number, 2 * (count - oldest) + 1
        records[at], records[at + 1] = name, '[' .. found[oldest] .. ARGV[ENDS + queue]
        leases[at], leases[at + 1] = now, name
        messages[#messages + 1] = found[oldest]
      end
      -- Recorded before it is taken: what goes wrong here costs nothing.
      redis.call('HSET', unacked, unpack(records))
      redis.call('ZADD', index, unpack(leases))
      redis.call('LTRIM', list, 0, -count - 1)
      taken[#taken + 1], taken[#taken + 2] = queue, messages
      wanted = wanted - count
    end
  end
  left = left - (most - wanted)
  return most - wanted
end

-- Every queue has its share; what is left goes to those that have more.
local share, more = math.ceil(left / queues), {}
for queue = 1, queues do
  local most = math.min(share, left)
  if take(queue, most) == most then more[#more + 1] = queue end
end
for _, queue in ipairs(more) do
  take(queue, left)
end
if failed and #taken == 0 then return failed end
return taken
