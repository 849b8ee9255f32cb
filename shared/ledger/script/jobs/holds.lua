-- What holds a queued job back: the pause of its queue, or a gate.
--
-- A gate limits the jobs of a key: that of concurrency keys how many run at once, that of rate keys how soon one starts
-- after another. A queued job or step is in one of four sets of its queue, each in the order of running:
--   backlog:<queue>   not held: its message is in the broker, or will be published
--   held:<queue>      its queue is paused; its message is only in its record
--   limited:<queue>   the limit of its concurrency key is reached; likewise. Also in limited-key:<key>
--   rated:<queue>     the turn of its rate key has not come; likewise. Also in rated-key:<key>
-- running:<queue> and running-key:<key> have the running ones. admitted-key:<key> and offered-key:<key> have those that
-- a gate has let go and that have not started, by the time of that. turn:<key> is when the next job of a rate key may
-- start, and turns has the rate keys for which jobs wait, by when to look at them. A workflow is in none of them, but
-- its steps are.

-- luacheck: read globals KEY (keys)
-- luacheck: globals freed (records)
-- luacheck: read globals NOW change field_of int listed load set try (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals has_message (messages)
-- luacheck: read globals is_paused list_of order published_key put put_first (queues)

local ADMITTED_AT_ONCE = 50 -- each takes 0.1 ms
local PLACES_LOOKED_AT = 10 -- per key in a round of the keeper
local ADMISSION_MS = 60000 -- after this time without a start, the place or turn is also given to another job

local WAITS_IN = { queue_paused = KEY.held, concurrency_limited = KEY.limited, over_rate = KEY.rated }

local function waiting_set(record) return (WAITS_IN[record.held_by] or KEY.backlog) .. record.queue end

local function turn_of(key) return tonumber(redis.call('GET', KEY.turn .. key) or '0') end

-- Whether a job that is not running finds no place of its concurrency key.
local function is_full(record, key)
  local others = redis.call('SCARD', KEY.running_key .. key)
  if redis.call('SISMEMBER', KEY.running_key .. key, record.id) == 1 then others = others - 1 end -- lost
  return others >= tonumber(record.concurrency_limit)
end

local function has_place(record, key)
  local taken = redis.call('SCARD', KEY.running_key .. key) + redis.call('ZCARD', KEY.admitted_key .. key)
  return taken < tonumber(record.concurrency_limit)
end

-- Whether a job must not start yet because of its rate key: the turn has not come, or belongs to one before it.
local function is_out_of_turn(record, key)
  if turn_of(key) > NOW then return true end
  local id, before = unpack(redis.call('ZRANGE', KEY.rated_key .. key, 0, 0, 'WITHSCORES'))
  return id and id ~= record.id and (record.state ~= 'queued' or tonumber(before) < order(record))
end

-- Whether the first waiting job of a rate key is to be published. If not, `turns` says when to look again: until then
-- none can start, as a job that was published starts the next interval when it starts.
local function is_its_turn(record, key)
  local turn, since = turn_of(key), NOW - ADMISSION_MS
  if turn <= NOW then
    if redis.call('ZCOUNT', KEY.offered_key .. key, since, '+inf') == 0 then return true end
    turn = NOW + math.min(tonumber(record.rate_interval_ms), ADMISSION_MS)
  end
  change('ZADD', KEY.turns, int(turn), key)
  return false
end

local GATES = {
  {
    why = 'concurrency_limited', key = 'concurrency_key', waiting = KEY.limited_key, offered = KEY.admitted_key,
    keys = function() return redis.call('SMEMBERS', KEY.limited_keys) end, forget = { 'SREM', KEY.limited_keys },
    is_shut = is_full, opens_for = has_place, opens_by_start = false,
  },
  {
    why = 'over_rate', key = 'rate_key', waiting = KEY.rated_key, offered = KEY.offered_key,
    keys = function() return redis.call('ZRANGE', KEY.turns, 0, -1) end, forget = { 'ZREM', KEY.turns },
    is_shut = is_out_of_turn, opens_for = is_its_turn, opens_by_start = true,
  },
}

local CONCURRENCY, RATE = GATES[1], GATES[2]

-- Look, after the transition, whether the gate lets a waiting job of a key go.
local function revisit(gate, key) freed[gate.waiting .. key] = { gate, key } end

-- Hold a job. Its message is no longer in the broker, or its delivery is dropped.
local function hold(record, why)
  change('ZREM', waiting_set(record), record.id)
  change('ZREM', published_key(list_of(record)), record.id)
  change('ZREM', KEY.outbox, record.id)
  set(record, { held_by = why })
  change('ZADD', waiting_set(record), order(record), record.id)
  if why == 'queue_paused' then change('SADD', KEY.held_queues, record.queue) end
  for _, gate in ipairs(GATES) do
    local key = record[gate.key]
    if key then
      change('ZREM', gate.offered .. key, record.id)
      if why == gate.why then
        change('ZADD', gate.waiting .. key, order(record), record.id)
      else
        change('ZREM', gate.waiting .. key, record.id)
      end
    end
  end
  if why == 'concurrency_limited' then change('SADD', KEY.limited_keys, record.concurrency_key) end
end

-- End the hold of a job; the caller publishes it.
local function free(record)
  if not record.held_by then return end
  change('ZREM', waiting_set(record), record.id)
  for _, gate in ipairs(GATES) do
    if record[gate.key] then change('ZREM', gate.waiting .. record[gate.key], record.id) end
  end
  set(record, { held_by = false })
  change('ZADD', waiting_set(record), order(record), record.id)
end

local function publish(record)
  if is_paused(record.queue) then hold(record, 'queue_paused') else put(record) end
end

local function publish_first(record, score)
  if is_paused(record.queue) then hold(record, 'queue_paused') else put_first(record, score) end
end

-- Let the waiting job of a key go that is the most urgent, then the oldest, if there is a place or it is its turn. It
-- starts if that is still so when a worker claims it. Nothing is reserved, so no job waits for one in a queue without
-- workers. Returns whether there may be room for another.
local function admit(gate, key)
  local waiting = gate.waiting .. key
  local id = redis.call('ZRANGE', waiting, 0, 0)[1]
  if not id then
    change(gate.forget[1], gate.forget[2], key)
    return false
  end
  local record = load(id)
  if not record or record.state ~= 'queued' then
    change('ZREM', waiting, id)
    return true
  end
  if not gate.opens_for(record, key) then return false end
  if is_paused(record.queue) then
    hold(record, 'queue_paused')
  else
    free(record)
    change('ZADD', gate.offered .. key, NOW, id)
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
  for _, gate in ipairs(GATES) do
    for _, key in ipairs(gate.keys()) do
      take_from(gate.waiting .. key)
      take_from(gate.offered .. key)
    end
  end
  change('HSET', KEY.set_aside, id, why)
end

-- Give the free places and turns, after the transition that freed them is written. Each is a separate transition: a
-- failed one does not undo it. Returns how many; the keeper gives what is left.
local function admit_all()
  local given = 0
  for waiting, gate_and_key in pairs(freed) do
    while given < ADMITTED_AT_ONCE do
      local done, more = try(admit, unpack(gate_and_key))
      if done and not more then break end
      given = given + 1
      if not done then
        local head = redis.pcall('ZRANGE', waiting, 0, 0)[1]
        if not head or not try(set_aside, head, more) then break end
      end
    end
  end
  freed = {}
  return given
end

-- Update the sets of the queue and of the keys when a job changes its state.
local function move(record, from, state)
  local starts = state == 'running'
  if from == 'queued' then
    change('ZREM', waiting_set(record), record.id)
    if record.held_by then set(record, { held_by = false }) end
  elseif from == 'running' then
    change('ZREM', KEY.running .. record.queue, record.id)
  end
  if state == 'queued' then
    change('ZADD', waiting_set(record), order(record), record.id)
  elseif starts then
    change('ZADD', KEY.running .. record.queue, NOW, record.id)
  end
  local concurrency_key, rate_key = record.concurrency_key, record.rate_key
  if starts and concurrency_key then change('SADD', KEY.running_key .. concurrency_key, record.id) end
  if starts and rate_key then
    local interval_ms = record.rate_interval_ms
    change('SET', KEY.turn .. rate_key, int(NOW + tonumber(interval_ms)), 'PX', interval_ms)
  end
  if from ~= 'queued' and from ~= 'running' then return end
  for _, gate in ipairs(GATES) do
    local key = record[gate.key]
    if key then
      change('ZREM', gate.waiting .. key, record.id)
      change('ZREM', gate.offered .. key, record.id)
      if not starts or gate.opens_by_start then revisit(gate, key) end
    end
  end
  if concurrency_key and not starts then change('SREM', KEY.running_key .. concurrency_key, record.id) end
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
    revisit(CONCURRENCY, before)
  end
  set(record, { concurrency_key = place.key, concurrency_limit = place.limit })
end

-- Why a job that a worker claims must not start; nil if it may.
local function why_held(record)
  if is_paused(record.queue) then return 'queue_paused' end
  for _, gate in ipairs(GATES) do
    local key = record[gate.key]
    if key and gate.is_shut(record, key) then return gate.why end
  end
end

-- Hold a queued job that a worker claims but that must not run now; `message` is the delivered one. Returns whether.
local function held_at_claim(record, message)
  local why = why_held(record)
  if not why then return false end
  if not has_message(record) then set(record, { message = message }) end
  if record.state ~= 'queued' then -- it is due, and its message came before the keeper published it
    change('ZREM', KEY.due, record.id)
    enter(record, 'queued')
    set(record, { due_at = false })
    emit_state(record)
  end
  hold(record, why)
  for _, gate in ipairs(GATES) do
    local key = record[gate.key]
    if key and (why ~= gate.why or gate.opens_by_start) then revisit(gate, key) end
  end
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
  revisit(CONCURRENCY, key)
end

-- For the keeper: publish the next job of each rate key whose turn has come. Returns the time of the next look.
local function look_at_turns(limit)
  for _, key in ipairs(redis.call('ZRANGE', KEY.turns, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, limit)) do
    change('ZREMRANGEBYSCORE', KEY.offered_key .. key, '-inf', NOW - ADMISSION_MS)
    revisit(RATE, key)
  end
  admit_all()
  return redis.call('ZRANGE', KEY.turns, 0, 0, 'WITHSCORES')[2]
end
