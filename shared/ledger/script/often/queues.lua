-- Where a queued job waits: with the broker, held by the pause of its queue, or held by its concurrency key.
--
-- A queued job or step is in one of three sets of its queue, each in the order in which jobs are to run:
--   backlog:<queue>   free to run: its message is with the broker, or on its way there
--   held:<queue>      its queue is paused; its message is in its record only
--   limited:<queue>   as many jobs of its key run as may; likewise. Also in limited-key:<key>
-- running:<queue> and running-key:<key> have those under way. admitted-key:<key> has those that a free place was given
-- to and that have not started yet, by the time of that. A workflow's own entry is in none of them: its steps are.

-- luacheck: read globals LISTS NOW P int load record_key record_of set (records)
-- luacheck: read globals emit_state (events)

local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local BAND = 4398046511104 -- 2^42 ms: wider than any time, so that each priority has a band of scores of its own
local ADMITTED_AT_ONCE = 100
local WAITS = { scheduled = true, retrying = true, queued = true }
local STEPS_LOOKED_AT = 100
local PLACES_LOOKED_AT = 10 -- of each key in a round of the keeper
local ADMISSION_MS = 60000 -- a place given to a job that does not start within this time is given to another, too

local function list_of(record)
  local redis_priority = 9 - tonumber(record.priority)
  if redis_priority == 0 then return LISTS .. record.queue end
  return LISTS .. record.queue .. PRIORITY_SEPARATOR .. redis_priority
end

local function published_key(list) return P .. 'published:' .. list end

local function note_published(record)
  if record.outbox ~= '1' then -- a broker elsewhere keeps its own account of what it has delivered
    local list = list_of(record)
    redis.call('SADD', P .. 'lists', list)
    redis.call('ZADD', published_key(list), NOW, record.id)
  end
  set(record, { published_at = NOW, publishes = tonumber(record.publishes or '0') + 1 })
end

local function order(record) return (9 - tonumber(record.priority)) * BAND + tonumber(record.queued_at) end

local function is_paused(queue) return redis.call('HEXISTS', P .. 'paused', queue) == 1 end

local function waiting_set(record)
  if record.held_by == 'queue_paused' then return P .. 'held:' .. record.queue end
  if record.held_by == 'concurrency_limited' then return P .. 'limited:' .. record.queue end
  return P .. 'backlog:' .. record.queue
end

-- Which job a message is of; nil for one that is not ours.
local function id_in(text)
  local readable, message = pcall(cjson.decode, text)
  local id = readable and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
  return type(id) == 'string' and id or nil
end

-- Put the job's message where workers find it. With a broker elsewhere it goes to the outbox, from which the
-- gateway that accepts it, or else the keeper, publishes it.
local function put(record)
  if record.outbox == '1' then
    local by_gateway = record.created_at == int(NOW) -- it is being accepted; the keeper waits before it steps in
    redis.call('ZADD', P .. 'outbox', by_gateway and NOW or 0, record.id)
    return
  end
  redis.call('LPUSH', list_of(record), record.message)
  note_published(record)
end

-- The same for a job that has been at the head of its list before: there it goes again. A list is told to be first in,
-- first out by the scores of what is published, so it is noted as just older than what it overtakes.
local function put_first(record)
  if record.outbox == '1' then
    redis.call('ZADD', P .. 'outbox', 1, record.id) -- no gateway has it in hand: the keeper need not wait for one
    return
  end
  local list = list_of(record)
  local head = redis.call('LINDEX', list, -1)
  local overtaken = head and id_in(head)
  local score = overtaken and redis.call('ZSCORE', published_key(list), overtaken)
  if head and not score then -- what is at the head runs no more: then older than all
    score = redis.call('ZRANGE', published_key(list), 0, 0, 'WITHSCORES')[2]
  end
  redis.call('RPUSH', list, record.message)
  note_published(record)
  if score then redis.call('ZADD', published_key(list), score - 1, record.id) end
end

-- Keep a job from running for now. Its message is with the broker no more, or its delivery is dropped.
local function hold(record, why)
  redis.call('ZREM', waiting_set(record), record.id)
  redis.call('ZREM', published_key(list_of(record)), record.id)
  redis.call('ZREM', P .. 'outbox', record.id)
  set(record, { held_by = why })
  redis.call('ZADD', waiting_set(record), order(record), record.id)
  if why == 'queue_paused' then redis.call('SADD', P .. 'held-queues', record.queue) end
  local key = record.concurrency_key
  if not key then return end
  redis.call('ZREM', P .. 'admitted-key:' .. key, record.id)
  if why == 'concurrency_limited' then
    redis.call('ZADD', P .. 'limited-key:' .. key, order(record), record.id)
    redis.call('SADD', P .. 'limited-keys', key)
  else
    redis.call('ZREM', P .. 'limited-key:' .. key, record.id)
  end
end

-- The other way: it may run again, and the caller publishes it.
local function free(record)
  if not record.held_by then return end
  redis.call('ZREM', waiting_set(record), record.id)
  if record.concurrency_key then redis.call('ZREM', P .. 'limited-key:' .. record.concurrency_key, record.id) end
  set(record, { held_by = false })
  redis.call('ZADD', waiting_set(record), order(record), record.id)
end

local function publish(record)
  if is_paused(record.queue) then hold(record, 'queue_paused') else put(record) end
end

-- Give the free places of a key to those that wait for one, the most urgent and then the oldest first. They start if
-- there is still a place when a worker claims them: nothing is set aside, so nobody waits for a queue without workers.
local function admit(key)
  local waiting, admitted = P .. 'limited-key:' .. key, P .. 'admitted-key:' .. key
  for _ = 1, ADMITTED_AT_ONCE do
    local id = redis.call('ZRANGE', waiting, 0, 0)[1]
    if not id then
      redis.call('SREM', P .. 'limited-keys', key)
      return
    end
    local record = load(id)
    if not record or record.state ~= 'queued' then
      redis.call('ZREM', waiting, id)
    else
      local taken = redis.call('SCARD', P .. 'running-key:' .. key) + redis.call('ZCARD', admitted)
      if taken >= tonumber(record.concurrency_limit) then return end
      if is_paused(record.queue) then
        hold(record, 'queue_paused')
      else
        free(record)
        redis.call('ZADD', admitted, NOW, id)
        put_first(record)
      end
    end
  end
end

-- Keep the sets of the queue and of the key true when a job changes its state.
local function move(record, from, state)
  local key = record.concurrency_key
  if from == 'queued' then
    redis.call('ZREM', waiting_set(record), record.id)
    if record.held_by then set(record, { held_by = false }) end
  elseif from == 'running' then
    redis.call('ZREM', P .. 'running:' .. record.queue, record.id)
  end
  if state == 'queued' then
    redis.call('ZADD', waiting_set(record), order(record), record.id)
  elseif state == 'running' then
    redis.call('ZADD', P .. 'running:' .. record.queue, NOW, record.id)
    if key then redis.call('SADD', P .. 'running-key:' .. key, record.id) end
  end
  if key and (from == 'queued' or from == 'running') then
    redis.call('ZREM', P .. 'limited-key:' .. key, record.id)
    redis.call('ZREM', P .. 'admitted-key:' .. key, record.id)
    if state ~= 'running' then
      redis.call('SREM', P .. 'running-key:' .. key, record.id)
      admit(key)
    end
  end
end

-- Change a state: the field, the index that lists read, and the sets of those who wait and run.
local function enter(record, state)
  local from = record.state
  if not record.job_id then
    if from then redis.call('ZREM', P .. 'state:' .. from, record.id) end
    redis.call('ZADD', P .. 'state:' .. state, 0, record.id)
  end
  set(record, { state = state, queued_at = state == 'queued' and NOW or nil })
  if not record.steps then move(record, from, state) end
end

-- Drop the job from every work list: it is neither due, published, claimed nor expiring.
local function unlist(record)
  redis.call('ZREM', P .. 'due', record.id)
  redis.call('ZREM', P .. 'claims', record.id)
  redis.call('ZREM', P .. 'expiring', record.id)
  redis.call('ZREM', P .. 'outbox', record.id)
  redis.call('ZREM', published_key(list_of(record)), record.id)
end

-- Hold a queued job that a worker asks for and that may not run now; `message` is what it came with. Returns whether.
local function held_at_claim(record, message)
  local key = record.concurrency_key
  local is_full = key and redis.call('SCARD', P .. 'running-key:' .. key) >= tonumber(record.concurrency_limit)
  local why = is_paused(record.queue) and 'queue_paused' or is_full and 'concurrency_limited'
  if not why then return false end
  if not record.message then set(record, { message = message }) end
  if record.state ~= 'queued' then -- its time has come, and its message came before the keeper did
    redis.call('ZREM', P .. 'due', record.id)
    enter(record, 'queued')
    set(record, { due_at = false })
    emit_state(record)
  end
  hold(record, why)
  if key and why == 'queue_paused' then admit(key) end
  return true
end

-- Publish up to `limit` jobs that the pause of their queue held, if it is over. Returns their ids.
local function let_go(queue, limit)
  if is_paused(queue) then return {} end
  local held = P .. 'held:' .. queue
  local ids = redis.call('ZRANGE', held, 0, limit - 1)
  for _, id in ipairs(ids) do
    local record = load(id)
    if record and record.state == 'queued' then
      free(record)
      put(record)
    else
      redis.call('ZREM', held, id)
    end
  end
  if redis.call('ZCARD', held) == 0 then redis.call('SREM', P .. 'held-queues', queue) end
  return ids
end

-- The keeper's part: go on with a resume that nobody finished, and give places that nobody took.
local function tend_holds(limit, note)
  for _, queue in ipairs(redis.call('SMEMBERS', P .. 'held-queues')) do
    for _, id in ipairs(let_go(queue, limit)) do note('published', id) end
  end
  for _, key in ipairs(redis.call('SRANDMEMBER', P .. 'limited-keys', limit)) do
    for _, id in ipairs(redis.call('SRANDMEMBER', P .. 'running-key:' .. key, PLACES_LOOKED_AT)) do
      if redis.call('HGET', record_key(id), 'state') ~= 'running' then
        redis.call('SREM', P .. 'running-key:' .. key, id)
      end
    end
    redis.call('ZREMRANGEBYSCORE', P .. 'admitted-key:' .. key, '-inf', NOW - ADMISSION_MS)
    admit(key)
  end
end

-- Why a job does not run yet, and how many are before it in its queue. Nothing if it does not wait.
local function waiting(record)
  if not WAITS[record.state] then return end
  if record.state ~= 'queued' then return 'scheduled' end
  if record.steps then
    for n, id in ipairs(cjson.decode(record.steps)) do -- a step that waits for its worker speaks for the job
      if redis.call('HGET', record_key(id), 'state') == 'queued' then return waiting(load(id)) end
      if n == STEPS_LOOKED_AT then return end
    end
    return
  end
  if is_paused(record.queue) then return 'queue_paused' end
  if record.held_by == 'concurrency_limited' then return 'concurrency_limited' end
  if redis.call('ZCOUNT', P .. 'consumers:' .. record.queue, NOW, '+inf') == 0 then return 'no_consumer' end
  return 'behind', redis.call('ZRANK', waiting_set(record), record.id)
end

-- A record as clients read it: its fields, and why it waits.
local function shown(id)
  local flat = redis.call('HGETALL', record_key(id))
  for i = 1, #flat, 2 do
    if flat[i] == 'state' and not WAITS[flat[i + 1]] then return flat end
  end
  local why, position = waiting(record_of(flat))
  if why then
    flat[#flat + 1] = 'waiting_reason'
    flat[#flat + 1] = why
  end
  if position then
    flat[#flat + 1] = 'queue_position'
    flat[#flat + 1] = position
  end
  return flat
end
