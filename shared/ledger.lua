-- The ledger's transitions. One script, so that what two transitions share is written once; every call is atomic.
--
--   KEYS[1]  prefix of the ledger's own keys ("celeriac:")
--   KEYS[2]  prefix of Celery's results ("celery-task-meta-")
--   KEYS[3]  prefix of Celery's broker lists ("" unless global_keyprefix is set)
--   ARGV[1]  transition        ARGV[2]  its arguments as one JSON object
--
-- Records are hashes of strings. Times are milliseconds since 1970 by the server's clock: one clock for all.
-- The state machine is drawn in shared/states.py.

local P, META, LISTS = KEYS[1], KEYS[2], KEYS[3]
local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local EVENTS_KEPT = 2000
local CHANGES = P .. 'changes'
local FINAL = { succeeded = true, failed = true, cancelled = true, expired = true, quarantined = true, skipped = true }

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local NOW = now_ms()

-- Numbers go through %d or %.0f: Lua's tostring() would round a millisecond clock to 14 digits.
local function int(n) return string.format('%.0f', n) end

-- Days since 1970 to a date: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
local function iso8601(ms)
  local days, rest = math.floor(ms / 86400000), ms % 86400000
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local s = math.floor(rest / 1000)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03d000+00:00', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(s / 3600), math.floor(s / 60) % 60, s % 60, rest % 1000)
end

local function record_key(id) return P .. 'job:' .. id end

local function load(id)
  local flat = redis.call('HGETALL', record_key(id))
  if #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

-- Write fields of a record and keep the copy in hand true. A value of false deletes the field.
local function set(record, fields)
  local put, drop = {}, {}
  for name, value in pairs(fields) do
    if value == false then
      drop[#drop + 1] = name
      record[name] = nil
    else
      value = type(value) == 'number' and int(value) or value
      put[#put + 1] = name
      put[#put + 1] = value
      record[name] = value
    end
  end
  if #put > 0 then redis.call('HSET', record_key(record.id), unpack(put)) end
  if #drop > 0 then redis.call('HDEL', record_key(record.id), unpack(drop)) end
end

-- One stream a job; its steps write into it too. Every event wakes those who wait on the channel of changes.
local function emit(record, event, data)
  local job_id = record.job_id or record.id
  local stream = P .. 'events:' .. job_id
  local item = { 'event', event, 'at', int(NOW), 'data', data }
  if record.step then
    item[#item + 1] = 'step'
    item[#item + 1] = record.step
  end
  redis.call('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(item))
  redis.call('PUBLISH', CHANGES, job_id)
end

-- `more` is JSON text like '"reason": "..."': error documents are passed on as they came, never decoded, for
-- cjson would turn their empty arrays into objects.
local function emit_state(record, more)
  emit(record, 'state', '{"state": "' .. record.state .. '", "attempt": ' .. (record.attempt or '0') .. (more and ', ' .. more or '') .. '}')
end

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

-- Put the job's message where workers find it. With a broker elsewhere it goes to the outbox, from which
-- the gateway, or else the keeper, publishes it.
local function publish(record)
  if record.outbox == '1' then
    redis.call('ZADD', P .. 'outbox', NOW, record.id)
    return
  end
  redis.call('LPUSH', list_of(record), record.message)
  note_published(record)
end

-- Change a state: the field, the index that lists read, and nothing else.
local function enter(record, state)
  if not record.job_id then
    if record.state then redis.call('ZREM', P .. 'state:' .. record.state, record.id) end
    redis.call('ZADD', P .. 'state:' .. state, 0, record.id)
  end
  set(record, { state = state })
end

-- Drop the job from every work list: it is neither due, published, claimed nor expiring.
local function unlist(record)
  redis.call('ZREM', P .. 'due', record.id)
  redis.call('ZREM', P .. 'claims', record.id)
  redis.call('ZREM', P .. 'expiring', record.id)
  redis.call('ZREM', P .. 'outbox', record.id)
  redis.call('ZREM', published_key(list_of(record)), record.id)
end

-- What Celery's AsyncResult reads. `result` is JSON text.
local function store_celery_result(record, status, result)
  local value = string.format('{"status": "%s", "result": %s, "traceback": null, "children": [], "date_done": "%s", "task_id": "%s"}',
    status, result, iso8601(NOW), record.id)
  local key = META .. record.id
  redis.call('SET', key, value, 'PX', record.retention_ms)
  redis.call('PUBLISH', key, value)
end

local function celery_exception(exc_type, module, message)
  return cjson.encode({ exc_type = exc_type, exc_module = module, exc_message = { message } })
end

local CELERY_STATUS = { succeeded = 'SUCCESS', failed = 'FAILURE', quarantined = 'FAILURE', cancelled = 'REVOKED', expired = 'REVOKED', skipped = 'REVOKED' }

local function error_document(code, message, remedy)
  return cjson.encode({ code = code, message = message, remedy = remedy, retryable = false, details = cjson.decode('{}') })
end

local function close_attempt(record, outcome)
  if not record.attempt or record.attempt_open ~= '1' then return end
  local list = cjson.decode(record.attempts)
  local last = list[#list]
  last.finished_at_ms = NOW
  last.outcome = outcome
  set(record, { attempts = cjson.encode(list), attempt_open = false })
end

local settle -- defined below; a job and its steps end each other

local function steps_of(job)
  local steps = {}
  for _, id in ipairs(cjson.decode(job.steps)) do steps[#steps + 1] = load(id) end
  return steps
end

-- End every step of a job that has not ended: those under way are asked to stop, the others are closed.
local function close_steps(job, state, reason)
  for _, step in ipairs(steps_of(job)) do
    if step.state == 'running' then
      set(step, { cancel_requested_at = NOW, cancel_reason = reason })
      redis.call('PUBLISH', P .. 'cancels', step.id)
    elseif not FINAL[step.state] then
      settle(step, state, { error = error_document(state, reason, '') }, true)
    end
  end
end

-- What the end of a step means for its job and for the steps after it.
local function step_ended(step)
  local job = load(step.job_id)
  if not job then return end
  if step.state == 'succeeded' then
    set(job, { done = tonumber(job.done or '0') + 1 })
    for _, id in ipairs(cjson.decode(step.before or '[]')) do
      local follower = load(id)
      if follower and follower.state == 'waiting' then
        local waits_for = tonumber(follower.waits_for) - 1
        set(follower, { waits_for = waits_for })
        if waits_for == 0 then -- Celery publishes it now; the keeper looks after it if that fails
          enter(follower, 'queued')
          set(follower, { queued_at = NOW })
          note_published(follower)
          emit_state(follower)
        end
      end
    end
    if FINAL[job.state] then return end
    if tonumber(job.done) == tonumber(job.total) then
      settle(job, 'succeeded', { result = step.result })
    else
      emit(job, 'progress', cjson.encode({ current = tonumber(job.done), total = tonumber(job.total), unit = 'steps', message = '' }))
    end
  elseif not FINAL[job.state] then
    settle(job, step.state, { error = '{"step": ' .. cjson.encode(step.step) .. ', ' .. string.sub(step.error, 2) })
    close_steps(job, 'skipped', 'The step ' .. step.step .. ' ' .. step.state .. '.')
  end
end

-- End a job or step: outcome, timings, attempts, worker, indexes, event and Celery's own result, together.
-- `alone` is true where the caller ends the job itself.
settle = function(record, state, outcome, alone)
  close_attempt(record, state)
  unlist(record)
  enter(record, state)
  local retention_ms = tonumber(record.retention_ms)
  set(record, {
    finished_at = NOW, result = outcome.result or false, error = outcome.error or false,
    token = false, owner = false, claim_until = false, due_at = false, artifacts = outcome.artifacts or record.artifacts or '[]',
  })
  if state == 'succeeded' then
    store_celery_result(record, 'SUCCESS', outcome.result)
  else
    local document = cjson.decode(outcome.error)
    local exc_type, module = 'TaskFailure', 'shared.errors'
    if CELERY_STATUS[state] == 'REVOKED' then exc_type, module = 'TaskRevokedError', 'celery.exceptions' end
    store_celery_result(record, CELERY_STATUS[state], celery_exception(exc_type, module, document.code .. ': ' .. document.message))
  end
  emit_state(record, outcome.error and '"error": ' .. outcome.error)
  if not record.job_id then redis.call('ZADD', P .. 'ended', NOW + retention_ms, record.id) end
  if record.job_id then
    if not alone then step_ended(record) end
    return
  end
  -- A floor under the keeper's own clean-up. Steps stay as long as their job, which may wait longer than they do.
  local keys = { record_key(record.id), P .. 'events:' .. record.id }
  for _, id in ipairs(record.steps and cjson.decode(record.steps) or {}) do keys[#keys + 1] = record_key(id) end
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, retention_ms + 86400000) end
end

local function index(record)
  local id = record.id
  redis.call('ZADD', P .. 'jobs', 0, id)
  redis.call('ZADD', P .. 'kind:' .. record.kind, 0, id)
  redis.call('ZADD', P .. 'queue:' .. record.queue, 0, id)
  for _, tag in ipairs(cjson.decode(record.tags)) do redis.call('ZADD', P .. 'tag:' .. tag, 0, id) end
end

local function create(record)
  record.created_at = int(NOW)
  local flat = {}
  for name, value in pairs(record) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', record_key(record.id), unpack(flat))
end

-- The job waits for its time, or its message goes out.
local function start_waiting(record)
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    redis.call('ZADD', P .. 'due', record.due_at, record.id)
  else
    enter(record, 'queued')
    set(record, { queued_at = NOW })
    if record.message then publish(record) end
  end
  if record.expires_at then redis.call('ZADD', P .. 'expiring', record.expires_at, record.id) end
end

local T = {}

-- accept: submissions = [{idempotency_key?, fingerprint?, idempotency_ms?, jobs: [record...]}], each all or nothing.
-- A record has its steps' records in `with_steps`. Replies, one a submission:
-- {'accepted', created_at} | {'replayed', ids...} | {'conflict'}
function T.accept(a)
  local replies = {}
  for n, submission in ipairs(a) do
    local key = submission.idempotency_key and P .. 'idempotency:' .. submission.idempotency_key
    local known = key and redis.call('GET', key)
    if known then
      known = cjson.decode(known)
      replies[n] = known.fingerprint == submission.fingerprint and { 'replayed', known.created_at, unpack(known.ids) } or { 'conflict' }
    else
      local ids = {}
      for i, record in ipairs(submission.jobs) do
        ids[i] = record.id
        local steps = record.with_steps
        record.with_steps = nil
        create(record)
        index(record)
        if steps then
          for _, step in ipairs(steps) do
            create(step)
            if step.waits_for == '0' then start_waiting(step) else enter(step, 'waiting') end
          end
        end
        start_waiting(record)
        emit_state(record)
      end
      if key then
        local value = cjson.encode({ fingerprint = submission.fingerprint, ids = ids, created_at = int(NOW) })
        redis.call('SET', key, value, 'PX', submission.idempotency_ms)
      end
      replies[n] = { 'accepted', int(NOW) }
    end
  end
  return replies
end

local function quarantine(record)
  settle(record, 'quarantined', { error = error_document('quarantined',
    'It lost ' .. record.crashes .. ' workers, so it is not tried again.',
    'Look at the attempts and the workers\' logs: out of memory, a crash in native code, or a kill. Then retry it.') })
end

-- A job whose owner is gone: stop it, set it aside, or queue it again. Returns what was done. The message goes
-- out again unless the caller has one `in_hand`.
local function lost(record, in_hand)
  if record.cancel_requested_at then
    settle(record, 'cancelled', { error = error_document('cancelled', record.cancel_reason or 'Cancelled on request.', '') })
    return 'cancelled'
  end
  local crashes = tonumber(record.crashes or '0') + 1
  set(record, { crashes = crashes })
  if crashes >= tonumber(record.max_crashes) then
    close_attempt(record, 'lost')
    quarantine(record)
    return 'quarantined'
  end
  close_attempt(record, 'lost')
  redis.call('ZREM', P .. 'claims', record.id)
  set(record, { token = false, owner = false, claim_until = false })
  enter(record, 'queued')
  set(record, { queued_at = NOW })
  if not in_hand then publish(record) end
  emit_state(record, '"reason": "lost its worker"')
  return 'republished'
end

local function expire(record)
  settle(record, 'expired', { error = error_document('expired', 'It did not start before its expiry.', 'Submit it again, with a longer expires_in_s.') })
end

-- claim: {id, owner, worker, lease_ms, message, delivery, adopt?}. `delivery` is new with every delivery, so that a
-- claim whose answer was lost can be asked for again. `adopt` is a record for a job that came past the gateway,
-- from somebody's own Celery client.
-- Replies {'run', token, attempt, retries, max_retries} or {'busy'|'early'|'unknown'} or a final state, 'succeeded' with the result.
function T.claim(a)
  local record = load(a.id)
  if not record then
    if not a.adopt or redis.call('ZSCORE', P .. 'gone', a.id) then return { 'unknown' } end
    record = a.adopt
    create(record)
    index(record)
    enter(record, 'queued')
    emit_state(record)
  end
  if FINAL[record.state] then return { record.state, record.result or '' } end
  if record.expires_at and not record.started_at and tonumber(record.expires_at) <= NOW then
    expire(record)
    return { 'expired' }
  end
  if record.state == 'running' then
    if record.delivery == a.delivery then return { 'run', record.token, record.attempt, record.retries or '0', record.max_retries } end
    if tonumber(record.claim_until) > NOW or redis.call('EXISTS', P .. 'amnesty') == 1 then return { 'busy' } end
    local done = lost(record, true)
    if done ~= 'republished' then return { record.state } end
  elseif record.due_at and tonumber(record.due_at) > NOW then
    return { 'early' } -- a copy of the message that came before its time; the keeper publishes it when it is due
  end
  local token = redis.call('INCR', P .. 'token')
  local attempt = tonumber(record.attempt or '0') + 1
  local attempts = record.attempts and cjson.decode(record.attempts) or {}
  attempts[#attempts + 1] = { attempt = attempt, worker = a.worker, started_at_ms = NOW }
  unlist(record)
  enter(record, 'running')
  set(record, {
    token = token, owner = a.owner, worker = a.worker, attempt = attempt, attempts = cjson.encode(attempts), attempt_open = '1',
    delivery = a.delivery, started_at = record.started_at or NOW, claim_until = NOW + a.lease_ms, due_at = false, progress = false,
    message = record.message or a.message,
  })
  redis.call('ZADD', P .. 'claims', NOW + a.lease_ms, record.id)
  emit_state(record, '"worker": ' .. cjson.encode(a.worker))
  local value = '{"status": "STARTED", "result": {"hostname": ' .. cjson.encode(a.worker) .. '}, "traceback": null, "children": [], "date_done": null, "task_id": "' .. record.id .. '"}'
  redis.call('SET', META .. record.id, value, 'PX', record.retention_ms)
  if record.job_id then
    local job = load(record.job_id)
    if job and job.state == 'queued' then
      enter(job, 'running')
      set(job, { started_at = NOW })
      redis.call('ZREM', P .. 'expiring', job.id)
      emit_state(job)
    end
  end
  return { 'run', int(token), int(attempt), record.retries or '0', record.max_retries }
end

-- Whether the caller's own call has already done what it asks for: the answer to its first try was lost.
local function repeated(record, call, a) return record and a.token and record.last_call == call .. a.token end

-- Whether the caller may write: it holds the token, or (the worker's main process) it is the owner.
local function holds(record, a)
  if not record or record.state ~= 'running' then return false end
  if a.token then return record.token == a.token end
  return record.owner == a.owner
end

-- renew: {owner, ids, lease_ms}. Replies one of 'ok' | 'cancel' | 'lost' | 'ended' | 'unknown' an id. 'ended' is what
-- this owner itself has finished: its child is on its way out and must not be disturbed.
function T.renew(a)
  local replies = {}
  for i, id in ipairs(a.ids) do
    local state, owner, cancel, ended_by =
      unpack(redis.call('HMGET', record_key(id), 'state', 'owner', 'cancel_requested_at', 'ended_by'))
    if not state then
      replies[i] = 'unknown'
    elseif state == 'running' and owner == a.owner then
      redis.call('HSET', record_key(id), 'claim_until', int(NOW + a.lease_ms))
      redis.call('ZADD', P .. 'claims', NOW + a.lease_ms, id)
      replies[i] = cancel and 'cancel' or 'ok'
    elseif FINAL[state] and ended_by == a.owner then
      replies[i] = 'ended'
    elseif state == 'running' or FINAL[state] then
      replies[i] = 'lost'
    else
      replies[i] = 'ok' -- delivered and not claimed yet
    end
  end
  return replies
end

-- progress: {id, token, progress?, logs: [text...]}. Replies 'ok' | 'cancel' | 'refused'.
function T.progress(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  for _, line in ipairs(a.logs or {}) do emit(record, 'log', line) end
  if a.progress then
    set(record, { progress = a.progress })
    emit(record, 'progress', a.progress)
    local value = '{"status": "PROGRESS", "result": ' .. a.progress .. ', "traceback": null, "children": [], "date_done": null, "task_id": "' .. record.id .. '"}'
    redis.call('SET', META .. record.id, value, 'PX', record.retention_ms)
  end
  return record.cancel_requested_at and 'cancel' or 'ok'
end

-- finish: {id, token | owner, state: succeeded|failed, result? | error?, artifacts?}. Replies 'ok' | 'refused'.
-- Without a claim (a message that no worker could even start) only a queued job can be failed.
function T.finish(a)
  local record = load(a.id)
  local unclaimed = record and a.unclaimed and record.state == 'queued'
  if repeated(record, 'finish ', a) then return 'ok' end
  if not holds(record, a) and not unclaimed then return 'refused' end
  local owner = record.owner or ''
  if record.cancel_requested_at and a.state ~= 'succeeded' then
    settle(record, 'cancelled', { error = error_document('cancelled', record.cancel_reason or 'Cancelled on request.', ''), artifacts = a.artifacts })
  else
    settle(record, a.state, a)
  end
  if a.token then set(record, { last_call = 'finish ' .. a.token, ended_by = owner }) end
  return 'ok'
end

-- retry: {id, token, delay_ms, error}. Replies 'ok' | 'refused'.
function T.retry(a)
  local record = load(a.id)
  if repeated(record, 'retry ', a) then return 'ok' end
  if not holds(record, a) then return 'refused' end
  if record.cancel_requested_at then return T.finish({ id = a.id, token = a.token, state = 'failed', error = a.error }) end
  close_attempt(record, 'retrying')
  unlist(record)
  enter(record, 'retrying')
  set(record, { due_at = NOW + a.delay_ms, error = a.error, retries = tonumber(record.retries or '0') + 1, last_call = 'retry ' .. a.token, token = false, owner = false, claim_until = false })
  redis.call('ZADD', P .. 'due', record.due_at, record.id)
  emit_state(record, '"due_at_ms": ' .. record.due_at .. ', "error": ' .. a.error)
  redis.call('SET', META .. record.id, '{"status": "RETRY", "result": ' .. celery_exception('TransientFailure', 'shared.errors', cjson.decode(a.error).message)
    .. ', "traceback": null, "children": [], "date_done": null, "task_id": "' .. record.id .. '"}', 'PX', record.retention_ms)
  return 'ok'
end

-- release: {id, owner, crashed}. The owner gives a job back: it shut down, or its child died.
-- Replies 'refused' | 'released' | 'republished' | 'quarantined' | 'cancelled'.
function T.release(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  if a.crashed or record.cancel_requested_at then return lost(record) end
  close_attempt(record, 'released')
  unlist(record)
  enter(record, 'queued')
  set(record, { token = false, owner = false, claim_until = false, queued_at = NOW })
  publish(record)
  emit_state(record, '"reason": "its worker shut down"')
  return 'released'
end

-- cancel: {id, reason}. Replies {'unknown'} | {'ended', state} | {'cancelled'} | {'requested'}.
function T.cancel(a)
  local record = load(a.id)
  if not record then return { 'unknown' } end
  if FINAL[record.state] then return { 'ended', record.state } end
  local document = error_document('cancelled', a.reason, '')
  if record.steps then
    settle(record, 'cancelled', { error = document })
    close_steps(record, 'cancelled', a.reason)
    return { 'cancelled' }
  end
  if record.state == 'running' then
    set(record, { cancel_requested_at = NOW, cancel_reason = a.reason })
    emit(record, 'cancel_requested', cjson.encode({ reason = a.reason }))
    redis.call('PUBLISH', P .. 'cancels', record.id)
    return { 'requested' }
  end
  settle(record, 'cancelled', { error = document })
  return { 'cancelled' }
end

-- published: {ids}. What the outbox held has reached the broker.
function T.published(a)
  for _, id in ipairs(a.ids) do
    redis.call('ZREM', P .. 'outbox', id)
    local record = load(id)
    if record and record.state == 'queued' then note_published(record) end
  end
  return 'ok'
end

-- upload: {id, retention_ms}. An upload is about to begin: its files go after this time, whether it ends well or not.
function T.upload(a)
  redis.call('ZADD', P .. 'uploads', NOW + a.retention_ms, a.id)
  return 'ok'
end

-- read: {id}. Replies {record fields...} and the fields of each step, or an empty array.
function T.read(a)
  local record = redis.call('HGETALL', record_key(a.id))
  if #record == 0 then
    local gone = redis.call('ZSCORE', P .. 'gone', a.id)
    return { gone and 'gone' or 'unknown' }
  end
  local replies = { 'found', record }
  local steps = redis.call('HGET', record_key(a.id), 'steps')
  if steps then
    for _, id in ipairs(cjson.decode(steps)) do replies[#replies + 1] = redis.call('HGETALL', record_key(id)) end
  end
  return replies
end

-- list: {index: [key...], states?: {state: true}, kind?, queue?, tag?, from, to, limit, scan}
-- Walks the narrowest index from the newest id down; ids sort by time. Replies {next_id, record...}.
function T.list(a)
  local found, upper, scanned = {}, a.upper, 0
  while #found < a.limit and scanned < a.scan do
    local ids = redis.call('ZRANGE', P .. a.index, upper, a.lower, 'BYLEX', 'REV', 'LIMIT', 0, 200)
    if #ids == 0 then return { '', unpack(found) } end
    for _, id in ipairs(ids) do
      scanned = scanned + 1
      upper = '(' .. id
      local record = load(id)
      local tagged = record and (not a.tag or string.find(record.tags, cjson.encode(a.tag), 1, true))
      if record and tagged and (not a.states or a.states[record.state]) and (not a.kind or record.kind == a.kind)
        and (not a.queue or record.queue == a.queue) then
        found[#found + 1] = redis.call('HGETALL', record_key(id))
        if #found == a.limit then return { id, unpack(found) } end
      end
      if scanned >= a.scan then return { id, unpack(found) } end
    end
  end
  return { '', unpack(found) }
end

-- Take everything of a job out of the ledger, leaving a mark that it was there. Returns its and its steps' ids.
local function forget(record)
  local ids = { record.id }
  for _, id in ipairs(record.steps and cjson.decode(record.steps) or {}) do ids[#ids + 1] = id end
  for _, name in ipairs({ 'jobs', 'ended', 'kind:' .. record.kind, 'queue:' .. record.queue, 'state:' .. record.state }) do
    redis.call('ZREM', P .. name, record.id)
  end
  for _, tag in ipairs(cjson.decode(record.tags)) do redis.call('ZREM', P .. 'tag:' .. tag, record.id) end
  for _, id in ipairs(ids) do redis.call('DEL', record_key(id), META .. id) end
  redis.call('DEL', P .. 'events:' .. record.id)
  redis.call('ZADD', P .. 'gone', NOW, record.id)
  return ids
end

local function older(key, bound, limit)
  return redis.call('ZRANGE', key, '-inf', bound, 'BYSCORE', 'LIMIT', 0, limit)
end

-- Queued jobs whose message is in no list any more and that no worker has claimed. A list is first in, first
-- out: whatever was published before the message at its tail has been taken off it.
local function lost_messages(list, a)
  local bound = NOW - a.grace_ms
  local tail = redis.call('LINDEX', list, -1)
  if tail then
    local readable, message = pcall(cjson.decode, tail)
    local id = readable and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
    local published = type(id) == 'string' and redis.call('ZSCORE', published_key(list), id)
    if not published then return {} end -- not one of ours, or a copy: wait until it is taken
    bound = math.min(bound, published - 1)
  end
  return older(published_key(list), bound, a.limit)
end

-- Celery forgets a chord once it has published its body. Let it count the parts again: celery.backends.redis.
local function rearm_chord(part, size)
  local readable, message = pcall(cjson.decode, part.message)
  local group = readable and message.headers.group
  if type(group) ~= 'string' then return end
  local key = 'celery-taskset-meta-' .. group
  redis.call('DEL', key .. '.c', key .. '.j', key .. '.t', key .. '.d')
  redis.call('SET', key .. '.s', size, 'PX', part.retention_ms)
end

-- Publish again what was lost on its way. A step that Celery should have published after its predecessors has
-- no message yet: then theirs go out again; a claim answers 'succeeded' and Celery goes on from there.
local function republish(record)
  if record.message then
    publish(record)
    return
  end
  note_published(record)
  local predecessors = cjson.decode(record.after or '[]')
  for n, id in ipairs(predecessors) do
    local before = load(id)
    if before and before.message then
      if n == 1 then rearm_chord(before, #predecessors) end
      if before.outbox == '1' then redis.call('ZADD', P .. 'outbox', NOW, before.id) else redis.call('LPUSH', list_of(before), before.message) end
    end
  end
end

-- tend: {owner, lock_ms, lease_ms, limit, grace_ms, outbox_grace_ms, remember_ms}: one round of the keeper.
-- Replies {} when another worker is the keeper, else {'tended', action, id, action, id, ...}; actions are
-- published (due), expired, republished (owner or message lost), quarantined, cancelled, unpublished, forgotten.
function T.tend(a)
  local holder = redis.call('GET', P .. 'keeper')
  if holder and holder ~= a.owner then return {} end
  redis.call('SET', P .. 'keeper', a.owner, 'PX', a.lock_ms)
  -- Nobody was the keeper for longer than a lease: the ledger itself was away, and nobody could renew either. Owners
  -- that live get one lease to show it.
  if NOW - tonumber(redis.call('GET', P .. 'tended_at') or NOW) > a.lease_ms then
    redis.call('SET', P .. 'amnesty', 1, 'PX', a.lease_ms)
  end
  redis.call('SET', P .. 'tended_at', int(NOW))
  local done = { 'tended' }
  local function note(action, id)
    done[#done + 1] = action
    done[#done + 1] = id
  end
  for _, id in ipairs(older(P .. 'due', NOW, a.limit)) do
    local record = load(id)
    redis.call('ZREM', P .. 'due', id)
    if record and (record.state == 'scheduled' or record.state == 'retrying') then
      enter(record, 'queued')
      set(record, { due_at = false, queued_at = NOW })
      if record.message then publish(record) end
      emit_state(record)
      note('published', id)
    end
  end
  for _, id in ipairs(older(P .. 'expiring', NOW, a.limit)) do
    local record = load(id)
    redis.call('ZREM', P .. 'expiring', id)
    if record and not record.started_at and not FINAL[record.state] then
      expire(record)
      if record.steps then close_steps(record, 'expired', 'The job expired.') end
      note('expired', id)
    end
  end
  local lapsed = redis.call('EXISTS', P .. 'amnesty') == 1 and {} or older(P .. 'claims', NOW, a.limit)
  for _, id in ipairs(lapsed) do
    local record = load(id)
    if record and record.state == 'running' then note(lost(record), id) else redis.call('ZREM', P .. 'claims', id) end
  end
  for _, list in ipairs(redis.call('SMEMBERS', P .. 'lists')) do
    for _, id in ipairs(lost_messages(list, a)) do
      local record = load(id)
      if record and record.state == 'queued' and list_of(record) == list then
        republish(record)
        note('republished', id)
      else
        redis.call('ZREM', published_key(list), id)
      end
    end
  end
  for _, id in ipairs(older(P .. 'outbox', NOW - a.outbox_grace_ms, a.limit)) do note('unpublished', id) end
  for _, id in ipairs(older(P .. 'ended', NOW, a.limit)) do
    local record = load(id)
    if record then
      for _, gone in ipairs(forget(record)) do note('forgotten', gone) end
    else
      redis.call('ZREM', P .. 'ended', id)
    end
  end
  for _, id in ipairs(older(P .. 'uploads', NOW, a.limit)) do
    redis.call('ZREM', P .. 'uploads', id)
    note('forgotten', id)
  end
  redis.call('ZREMRANGEBYSCORE', P .. 'gone', '-inf', NOW - a.remember_ms)
  return done
end

return T[ARGV[1]](cjson.decode(ARGV[2]))
