-- Where a queued job waits: with the broker, held by the pause of its queue, or held by its concurrency key.
--
-- A queued job or step is in one of three sets of its queue, each in the order in which jobs are to run:
--   backlog:<queue>   free to run: its message is with the broker, or on its way there
--   held:<queue>      its queue is paused; its message is in its record only
--   limited:<queue>   as many jobs of its key run as may; likewise. Also in limited-key:<key>
-- running:<queue> and running-key:<key> have those under way. admitted-key:<key> has those that a free place was given
-- to and that have not started yet, by the time of that. A workflow's own entry is in none of them: its steps are.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals WAITS (states)
-- luacheck: read globals NOW change field_of int load record_key record_of set try (records)
-- luacheck: read globals emit_state (events)

local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local BAND = 4398046511104 -- 2^42 ms: wider than any time, so that each priority has a band of scores of its own
local ADMITTED_AT_ONCE = 100
local STEPS_LOOKED_AT = 100
local PLACES_LOOKED_AT = 10 -- of each key in a round of the keeper
local COPIES_PASSED = 10 -- at the head of a list
local ADMISSION_MS = 60000 -- a place given to a job that does not start within this time is given to another, too

local function list_of(record)
  local redis_priority = 9 - tonumber(record.priority)
  if redis_priority == 0 then return KEY.list .. record.queue end
  return KEY.list .. record.queue .. PRIORITY_SEPARATOR .. redis_priority
end

local function published_key(list) return KEY.published .. list end

local function note_published(record)
  if record.outbox ~= '1' then -- a broker elsewhere keeps its own account of what it has delivered
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

-- A job's message and which publication of it this is: by that an old copy on a list is told from it.
local function numbered(record)
  local comma = string.find(record.message, '^{%s*}') and '' or ', '
  return (string.gsub(record.message, '^{', '{"publication": ' .. record.publishes .. comma, 1))
end

-- Which job a message is of (nil for one that is not ours), and which publication. What Celery itself publishes, a step
-- after those before it, says nothing: it is the first.
local function told_by(text)
  local readable, message = pcall(cjson.decode, text)
  local id = readable and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
  if type(id) == 'string' then return id, tonumber(message.publication) or 1 end
end

-- The score of the first message from the head of a list that is its job's latest, not a copy and not a stranger's, and
-- the ids of those before it. A list is first in, first out: of what was published earlier only these are still on it.
-- Infinity if the list has none; nil if it cannot be told, after many copies.
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

-- Put the job's message where workers find it. With a broker elsewhere it goes to the outbox, from which the
-- gateway that accepts it, or else the keeper, publishes it.
local function put(record)
  if record.outbox == '1' then
    local by_gateway = record.created_at == int(NOW) -- it is being accepted; the keeper waits before it steps in
    change('ZADD', KEY.outbox, by_gateway and NOW or 0, record.id)
    return
  end
  push('LPUSH', record)
end

-- The same for a job that has been at the head of its list before: there it goes again. A list is told to be first in,
-- first out by the scores of what is published, so it is noted as just older than what it overtakes, unless the caller
-- has a score for it.
local function put_first(record, score)
  if record.outbox == '1' then
    change('ZADD', KEY.outbox, 1, record.id) -- no gateway has it in hand: the keeper need not wait for one
    return
  end
  local published = published_key(list_of(record))
  if not score then
    local overtaken = first_known(list_of(record))
    -- many copies at the head: then older than all
    overtaken = overtaken or redis.call('ZRANGE', published, 0, 0, 'WITHSCORES')[2] or math.huge
    score = overtaken ~= math.huge and overtaken - 1
  end
  push('RPUSH', record)
  if score then change('ZADD', published, score, record.id) end
end

-- Keep a job from running for now. Its message is with the broker no more, or its delivery is dropped.
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

-- The other way: it may run again, and the caller publishes it.
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

-- Keys of which a place may be free. They are looked at when the transition is written: see `admit_all`.
local freed = {}

-- Give a free place of a key to the one of those that wait for one that is the most urgent, then the oldest. It starts
-- if there is still a place when a worker claims it: nothing is reserved, so nobody waits for a queue without workers.
-- Returns whether there may be another.
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

-- Take what cannot be worked on from every work list, and keep why for an operator. Its record stays as it is.
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

-- Each is a transition of its own: one that fails undoes nothing of what freed the place.
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

-- Keep the sets of the queue and of the key true when a job changes its state.
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

-- Change a state: the field, the index that lists read, and the sets of those who wait and run. What is queued `again`
-- through no fault of its own waits with those who came when it first did.
local function enter(record, state, again)
  local from = record.state
  if not record.job_id then
    if from then change('ZREM', KEY.state .. from, record.id) end
    change('ZADD', KEY.state .. state, 0, record.id)
  end
  set(record, { state = state })
  if state == 'queued' and not (again and record.queued_at) then set(record, { queued_at = NOW }) end
  if not record.steps then move(record, from, state) end
end

-- Drop the job from the work lists that its state has it in. Were it in another, the keeper would drop it there.
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

-- Hold a queued job that a worker asks for and that may not run now; `message` is what it came with. Returns whether.
local function held_at_claim(record, message)
  local key = record.concurrency_key
  local others = key and redis.call('SCARD', KEY.running_key .. key)
  if key and redis.call('SISMEMBER', KEY.running_key .. key, record.id) == 1 then others = others - 1 end -- it was lost
  local is_full = key and others >= tonumber(record.concurrency_limit)
  local why = is_paused(record.queue) and 'queue_paused' or is_full and 'concurrency_limited'
  if not why then return false end
  if not record.message then set(record, { message = message }) end
  if record.state ~= 'queued' then -- its time has come, and its message came before the keeper did
    change('ZREM', KEY.due, record.id)
    enter(record, 'queued')
    set(record, { due_at = false })
    emit_state(record)
  end
  hold(record, why)
  if key and why == 'queue_paused' then freed[key] = true end
  return true
end

-- Publish a job that the pause of its queue held, if it may go.
local function let_one_go(id, queue)
  local record = load(id)
  if record and record.state == 'queued' then
    free(record)
    put(record)
  else
    change('ZREM', KEY.held .. queue, id)
  end
end

-- Publish up to `limit` jobs that the pause of their queue held, if it is over; each is a transition of its own. `note`
-- hears of each what was done. Returns how many were looked at.
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

-- The keeper's part: give the places of a key that are free and that nobody took.
local function look_at_places(key)
  for _, id in ipairs(redis.call('SRANDMEMBER', KEY.running_key .. key, PLACES_LOOKED_AT)) do
    if field_of(id, 'state') ~= 'running' then change('SREM', KEY.running_key .. key, id) end
  end
  change('ZREMRANGEBYSCORE', KEY.admitted_key .. key, '-inf', NOW - ADMISSION_MS)
  freed[key] = true
end

-- Why a job does not run yet, and how many are before it in its queue. Nothing if it does not wait.
local function waiting(record)
  if not WAITS[record.state] then return end
  if record.state ~= 'queued' then return 'scheduled' end
  if record.steps then
    for n, id in ipairs(cjson.decode(record.steps)) do -- a step that waits for its worker speaks for the job
      if field_of(id, 'state') == 'queued' then return waiting(load(id)) end
      if n == STEPS_LOOKED_AT then return end
    end
    return
  end
  if is_paused(record.queue) then return 'queue_paused' end
  if record.held_by == 'concurrency_limited' then return 'concurrency_limited' end
  if redis.call('ZCOUNT', KEY.consumers .. record.queue, NOW, '+inf') == 0 then return 'no_consumer' end
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
