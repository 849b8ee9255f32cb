-- Where a queued job waits: in the broker, held by the pause of its queue, or held by its concurrency key.
--
-- A queued job or step is in one of three sets of its queue, each in the order of running:
--   backlog:<queue>   not held: its message is in the broker, or will be published
--   held:<queue>      its queue is paused; its message is only in its record
--   limited:<queue>   the limit of its key is reached; likewise. Also in limited-key:<key>
-- running:<queue> and running-key:<key> have the running ones. admitted-key:<key> has those that were given a free
-- place and have not started, by the time of that. A workflow is in none of them, but its steps are.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals WAITS (states)
-- luacheck: globals freed (records)
-- luacheck: read globals NOW change field_of int listed load record_key record_of set try (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals has_message message_of (messages)

local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local BAND = 4398046511104 -- 2^42 ms: larger than any time, so that each priority has a separate band of scores
local ADMITTED_AT_ONCE = 100
local STEPS_LOOKED_AT = 100
local PLACES_LOOKED_AT = 10 -- per key in a round of the keeper
local COPIES_PASSED = 10 -- maximum number of copies skipped at the head of a list
local ADMISSION_MS = 60000 -- after this time without a start, the place is also given to another job

local function list_of(record)
  local redis_priority = 9 - tonumber(record.priority)
  if redis_priority == 0 then return KEY.list .. record.queue end
  return KEY.list .. record.queue .. PRIORITY_SEPARATOR .. redis_priority
end

local function published_key(list) return KEY.published .. list end

local function note_published(record)
  if record.outbox ~= '1' then -- a separate broker tracks deliveries itself
    local list = list_of(record)
    change('SADD', KEY.lists, list)
    change('ZADD', published_key(list), NOW, record.id)
  end
  set(record, { published_at = NOW, publishes = tonumber(record.publishes or '0') + 1 })
end

local function order(record) return (9 - tonumber(record.priority)) * BAND + tonumber(record.queued_at) end

local function is_paused(queue) return redis.call('HEXISTS', KEY.paused, queue) == 1 end

local function waiting_set(record)
  if record.held_by == 'queue_paused' then return KEY.held .. record.queue end
  if record.held_by == 'concurrency_limited' then return KEY.limited .. record.queue end
  return KEY.backlog .. record.queue
end

-- The message of a job with the number of its publication, to distinguish it from an old copy on a list. It is a
-- header, so that a worker that puts a message back keeps it. No text in JSON has the pattern: its quotes are escaped.
local function numbered(record)
  local number = '%0"celeriac_publication": ' .. record.publishes .. ', '
  return (string.gsub(message_of(record), '"headers":%s*{', number, 1))
end

-- The job id of a message (nil for a message of another service), and the number of its publication. Messages that
-- Celery publishes itself, for later steps, have no number: they are the first.
local function told_by(text)
  local readable, message = pcall(cjson.decode, text)
  local id = readable and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
  if type(id) == 'string' then return id, tonumber(message.headers.celeriac_publication) or 1 end
end

-- The score of the first message from the head of a list that is the latest of its job, not a copy and not of another
-- service, and the ids of those before it. A list is first in, first out: of the messages published earlier, only these
-- are still on it. Infinity if the list has none; nil if it is unknown, after many copies.
local function first_known(list)
  local passed = {}
  for n = 1, COPIES_PASSED do
    local text = redis.call('LINDEX', list, -n)
    if not text then return math.huge, passed end
    local id, publication = told_by(text)
    if id then
      local score = redis.call('ZSCORE', published_key(list), id)
      if score and publication == tonumber(field_of(id, 'publishes')) then return tonumber(score), passed end
      passed[id] = true
    end
  end
  return nil, passed
end

local function push(command, record)
  note_published(record)
  change(command, list_of(record), numbered(record))
end

-- Publish the message of a job. With a separate broker, add the job to the outbox; the accepting gateway publishes it
-- from there, or the keeper if the gateway fails.
local function put(record)
  if record.outbox == '1' then
    local by_gateway = record.created_at == int(NOW) -- it is being accepted; the keeper waits before it publishes
    change('ZADD', KEY.outbox, by_gateway and NOW or 0, record.id)
    return
  end
  push('LPUSH', record)
end

-- Publish a job at the head of its list, because it was there before. The keeper relies on scores in the order of the
-- list, so its score is just lower than that of the job that it overtakes, unless the caller has a score.
local function put_first(record, score)
  if record.outbox == '1' then
    change('ZADD', KEY.outbox, 1, record.id) -- no gateway publishes it, so the keeper need not wait
    return
  end
  local published = published_key(list_of(record))
  if not score then
    local overtaken = first_known(list_of(record))
    -- many copies at the head: use a score below all
    overtaken = overtaken or redis.call('ZRANGE', published, 0, 0, 'WITHSCORES')[2] or math.huge
    score = overtaken ~= math.huge and overtaken - 1
  end
  push('RPUSH', record)
  if score then change('ZADD', published, score, record.id) end
end

-- Hold a job. Its message is no longer in the broker, or its delivery is dropped.
local function hold(record, why)
  change('ZREM', waiting_set(record), record.id)
  change('ZREM', published_key(list_of(record)), record.id)
  change('ZREM', KEY.outbox, record.id)
  set(record, { held_by = why })
  change('ZADD', waiting_set(record), order(record), record.id)
  if why == 'queue_paused' then change('SADD', KEY.held_queues, record.queue) end
  local key = record.concurrency_key
  if not key then return end
  change('ZREM', KEY.admitted_key .. key, record.id)
  if why == 'concurrency_limited' then
    change('ZADD', KEY.limited_key .. key, order(record), record.id)
    change('SADD', KEY.limited_keys, key)
  else
    change('ZREM', KEY.limited_key .. key, record.id)
  end
end

-- End the hold of a job; the caller publishes it.
local function free(record)
  if not record.held_by then return end
  change('ZREM', waiting_set(record), record.id)
  if record.concurrency_key then change('ZREM', KEY.limited_key .. record.concurrency_key, record.id) end
  set(record, { held_by = false })
  change('ZADD', waiting_set(record), order(record), record.id)
end

local function publish(record)
  if is_paused(record.queue) then hold(record, 'queue_paused') else put(record) end
end

local function publish_first(record, score)
  if is_paused(record.queue) then hold(record, 'queue_paused') else put_first(record, score) end
end

-- Give a free place of a key to the waiting job that is the most urgent, then the oldest. It starts if there is still a
-- place when a worker claims it. Nothing is reserved, so no job waits for one in a queue without workers.
-- Returns whether there may be another place.
local function admit(key)
  local waiting, admitted = KEY.limited_key .. key, KEY.admitted_key .. key
  local id = redis.call('ZRANGE', waiting, 0, 0)[1]
  if not id then
    change('SREM', KEY.limited_keys, key)
    return false
  end
  local record = load(id)
  if not record or record.state ~= 'queued' then
    change('ZREM', waiting, id)
    return true
  end
  local taken = redis.call('SCARD', KEY.running_key .. key) + redis.call('ZCARD', admitted)
  if taken >= tonumber(record.concurrency_limit) then return false end
  if is_paused(record.queue) then
    hold(record, 'queue_paused')
  else
    free(record)
    change('ZADD', admitted, NOW, id)
    put_first(record)
  end
  return true
end

-- Remove a job that cannot be processed from all work lists, and store the reason for an operator. Its record is kept.
local function set_aside(id, why)
  local function take_from(key)
    local score = redis.pcall('ZSCORE', key, id)
    if type(score) == 'string' then change('ZREM', key, id) end
  end
  for _, key in ipairs({ KEY.due, KEY.expiring, KEY.claims, KEY.outbox, KEY.callbacks, KEY.ended, KEY.uploads }) do
    take_from(key)
  end
  for _, list in ipairs(redis.call('SMEMBERS', KEY.lists)) do take_from(published_key(list)) end
  for _, queue in ipairs(redis.call('SMEMBERS', KEY.held_queues)) do take_from(KEY.held .. queue) end
  for _, key in ipairs(redis.call('SMEMBERS', KEY.limited_keys)) do
    take_from(KEY.limited_key .. key)
    take_from(KEY.admitted_key .. key)
  end
  change('HSET', KEY.set_aside, id, why)
end

-- Give the free places, after the transition that freed them is written. Each is a separate transition: a failed one
-- does not undo it.
local function admit_all()
  for key in pairs(freed) do
    for _ = 1, ADMITTED_AT_ONCE do
      local done, more = try(admit, key)
      if done and not more then break end
      if not done then
        local head = redis.pcall('ZRANGE', KEY.limited_key .. key, 0, 0)[1]
        if not head or not try(set_aside, head, more) then break end
      end
    end
  end
  freed = {}
end

-- Update the sets of the queue and of the key when a job changes its state.
local function move(record, from, state)
  local key = record.concurrency_key
  if from == 'queued' then
    change('ZREM', waiting_set(record), record.id)
    if record.held_by then set(record, { held_by = false }) end
  elseif from == 'running' then
    change('ZREM', KEY.running .. record.queue, record.id)
  end
  if state == 'queued' then
    change('ZADD', waiting_set(record), order(record), record.id)
  elseif state == 'running' then
    change('ZADD', KEY.running .. record.queue, NOW, record.id)
    if key then change('SADD', KEY.running_key .. key, record.id) end
  end
  if key and (from == 'queued' or from == 'running') then
    change('ZREM', KEY.limited_key .. key, record.id)
    change('ZREM', KEY.admitted_key .. key, record.id)
    if state ~= 'running' then
      change('SREM', KEY.running_key .. key, record.id)
      freed[key] = true
    end
  end
end

-- Change a state: the field, the index of lists, and the sets of waiting and running jobs. A job that is queued `again`
-- without its fault keeps its place in the order of waiting.
local function enter(record, state, again)
  local from = record.state
  if not record.job_id then
    if from then change('ZREM', KEY.state .. from, listed(record)) end
    change('ZADD', KEY.state .. state, 0, listed(record))
  end
  set(record, { state = state })
  if state == 'queued' and not (again and record.queued_at) then set(record, { queued_at = NOW }) end
  if not record.steps then move(record, from, state) end
end

-- Remove the job from the work lists of its state. The keeper removes it from others, if it is in any.
local function unlist(record)
  if record.state == 'running' then
    change('ZREM', KEY.claims, record.id)
  elseif record.outbox ~= '1' then
    change('ZREM', published_key(list_of(record)), record.id)
  end
  if record.due_at then change('ZREM', KEY.due, record.id) end
  if record.expires_at and not record.started_at then change('ZREM', KEY.expiring, record.id) end
  if record.outbox == '1' then change('ZREM', KEY.outbox, record.id) end
end

-- From now on, count a job that is not running under the key that its worker names.
local function count_under(record, place)
  local before = record.concurrency_key
  if before and before ~= place.key then
    change('ZREM', KEY.limited_key .. before, record.id)
    change('ZREM', KEY.admitted_key .. before, record.id)
    freed[before] = true
  end
  set(record, { concurrency_key = place.key, concurrency_limit = place.limit })
end

-- Hold a queued job that a worker claims but that must not run now; `message` is the delivered one. Returns whether.
local function held_at_claim(record, message)
  local key = record.concurrency_key
  local others = key and redis.call('SCARD', KEY.running_key .. key)
  if key and redis.call('SISMEMBER', KEY.running_key .. key, record.id) == 1 then others = others - 1 end -- lost
  local is_full = key and others >= tonumber(record.concurrency_limit)
  local why = is_paused(record.queue) and 'queue_paused' or is_full and 'concurrency_limited'
  if not why then return false end
  if not has_message(record) then set(record, { message = message }) end
  if record.state ~= 'queued' then -- it is due, and its message came before the keeper published it
    change('ZREM', KEY.due, record.id)
    enter(record, 'queued')
    set(record, { due_at = false })
    emit_state(record)
  end
  hold(record, why)
  if key and why == 'queue_paused' then freed[key] = true end
  return true
end

-- Publish a job that the pause of its queue held, if its key allows it.
local function let_one_go(id, queue)
  local record = load(id)
  if record and record.state == 'queued' then
    free(record)
    put(record)
  else
    change('ZREM', KEY.held .. queue, id)
  end
end

-- Publish at most `limit` jobs that the pause of their queue held, if it has ended; each is a separate transition.
-- Calls `note` with what was done to each. Returns the number of jobs examined.
local function let_go(queue, limit, note)
  if is_paused(queue) then return 0 end
  local held = KEY.held .. queue
  local ids = redis.call('ZRANGE', held, 0, limit - 1)
  for _, id in ipairs(ids) do
    local done, why = try(let_one_go, id, queue)
    if not done then try(set_aside, id, why) end
    note(done and 'published' or 'set_aside', id)
  end
  if redis.call('ZCARD', held) == 0 then change('SREM', KEY.held_queues, queue) end
  return #ids
end

-- For the keeper: give the free places of keys that no job took.
local function look_at_places(key)
  for _, id in ipairs(redis.call('SRANDMEMBER', KEY.running_key .. key, PLACES_LOOKED_AT)) do
    if field_of(id, 'state') ~= 'running' then change('SREM', KEY.running_key .. key, id) end
  end
  change('ZREMRANGEBYSCORE', KEY.admitted_key .. key, '-inf', NOW - ADMISSION_MS)
  freed[key] = true
end

-- Whether a worker that consumes the queue of a job runs its kind; one that does not say which it runs may.
local function has_worker(record)
  for _, owner in ipairs(redis.call('ZRANGE', KEY.consumers .. record.queue, NOW, '+inf', 'BYSCORE')) do
    local kinds = redis.call('HGET', KEY.worker .. owner, 'kinds') or ''
    if kinds == '' or string.find(kinds, '"' .. record.kind .. '"', 1, true) then return true end
  end
  return false
end

-- Why a job is waiting, and how many are before it in its queue. Nothing if it is not waiting.
local function waiting(record)
  if not WAITS[record.state] then return end
  if record.state == 'retrying' and record.given_back_at then return 'no_worker_for_kind' end
  if record.state ~= 'queued' then return 'scheduled' end
  if record.steps then
    for n, id in ipairs(cjson.decode(record.steps)) do -- the first step that waits for a worker stands for the job
      if field_of(id, 'state') == 'queued' then return waiting(load(id)) end
      if n == STEPS_LOOKED_AT then return end
    end
    return
  end
  if is_paused(record.queue) then return 'queue_paused' end
  if record.held_by == 'concurrency_limited' then return 'concurrency_limited' end
  if redis.call('ZCOUNT', KEY.consumers .. record.queue, NOW, '+inf') == 0 then return 'no_consumer' end
  if not has_worker(record) then return 'no_worker_for_kind' end
  return 'behind', redis.call('ZRANK', waiting_set(record), record.id)
end

-- A record for clients: its fields, and why it is waiting.
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
