-- The transitions of workers: claim, renew, progress, submit, finish, retry, give_back, release.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals MOST_CHILDREN (limits)
-- luacheck: read globals NOW change field_of hand_of int load record_key set time_id (records)
-- luacheck: read globals emit emit_state (events)
-- luacheck: read globals celery_exception error_document note_celery_result (results)
-- luacheck: read globals refer (files)
-- luacheck: read globals note_published (queues)
-- luacheck: read globals count_under enter held_at_claim publish_first unlist (holds)
-- luacheck: read globals drop_messages_before expanding_step is_tolerated settle upstream_of (steps)
-- luacheck: read globals close_attempt expire quarantine stop (endings)
-- luacheck: read globals create index write (submission)

-- Whether the ledger was away: it had no round of a keeper for a lease, and another worker becomes the keeper sooner.
local function was_away(silent_ms, lease_ms) return silent_ms > lease_ms end

-- Handle a job that lost its claim owner: stop, quarantine, or queue it again, before all jobs that have waited less.
-- Returns what was done. Publishes the message again unless the caller has one (`in_hand`).
local function lost(record, in_hand)
  if record.cancel_requested_at then return stop(record) end
  local crashes = tonumber(record.crashes or '0') + 1
  set(record, { crashes = crashes })
  if crashes >= tonumber(record.max_crashes) then
    close_attempt(record, 'lost')
    quarantine(record)
    return 'quarantined'
  end
  close_attempt(record, 'lost')
  change('ZREM', KEY.claims, record.id)
  set(record, { token = false, owner = false, claim_until = false })
  enter(record, 'queued', true)
  if not in_hand then publish_first(record) end
  emit_state(record, '"reason": "lost its worker"')
  return 'republished'
end

-- Whether no lapsed claim may be taken back: the ledger was away, so that nobody could renew, and all owners get one
-- more lease. The keeper grants it; until its first round it shows in the time of the last one.
local function is_amnesty(lease_ms)
  if redis.call('EXISTS', KEY.amnesty) == 1 then return true end
  return was_away(NOW - (redis.call('GET', KEY.tended_at) or NOW), lease_ms)
end

-- Make a job of a message that another Celery client sent without the gateway; the caller enters its state. Returns
-- whether it was cancelled before.
local function adopt(record)
  record.listed_as = time_id(NOW, record.id) .. '/' .. record.id
  create(record)
  index(record)
  refer(record)
  if record.file_owner then change('SET', KEY.file_owner .. record.file_owner, record.id) end
  enter(record, 'queued')
  local reason = redis.call('GET', KEY.cancelled_ahead .. record.id)
  if not reason then return false end
  change('DEL', KEY.cancelled_ahead .. record.id)
  settle(record, 'cancelled', { error = error_document('cancelled', reason, '') })
  return true
end

local function right_to_run(record)
  local version = record.contract and (record.version or '1') or ''
  return {
    'run', record.token, record.attempt, record.retries or '0', record.max_retries, upstream_of(record), version,
  }
end

-- The message of a job on a separate broker has come, so it was published, though its publisher may not have said so
-- yet: when that comes, the job may be in the outbox again, for another publication.
local function note_arrival(record)
  if record.outbox ~= '1' then return end
  if not record.publishes or redis.call('ZSCORE', KEY.outbox, record.id) then
    change('ZREM', KEY.outbox, record.id)
    note_published(record)
  end
end

-- claim: {id, root?, owner, worker, lease_ms, message, delivery, adopt?, place?}. `root` is the job of a step.
-- `delivery` is an id of this delivery, so that a claim whose reply was lost can be repeated. `adopt` is a record for a
-- job that another Celery client sent without the gateway. `place` has the concurrency key and the limit of a kind for
-- which only a worker knows them.
-- Replies {'run', token, attempt, retries, max_retries, upstream, version of the contract or ''}, or
-- {'busy'|'early'|'held'|'unknown'} or a final state; 'succeeded' with the result.
function T.claim(a)
  local record = load(a.id)
  if not record then
    local is_gone = redis.call('ZSCORE', KEY.gone, a.id) or a.root and redis.call('ZSCORE', KEY.gone, a.root)
    if not a.adopt or is_gone then return { 'unknown' } end
    record = a.adopt
    if adopt(record) then return { 'cancelled' } end
    emit_state(record)
  end
  if is_tolerated(record) then return { 'succeeded', 'null' } end
  if FINAL[record.state] then return { record.state, record.result or '' } end
  local job = record.job_id and load(record.job_id)
  local whole = job or record -- a workflow expires as a whole: the workflow has the time, not its steps
  if whole.expires_at and not whole.started_at and not FINAL[whole.state] and tonumber(whole.expires_at) <= NOW then
    expire(whole)
    return { 'expired' }
  end
  if record.state == 'running' then
    if record.delivery == a.delivery then return right_to_run(record) end
    if tonumber(record.claim_until) > NOW or is_amnesty(a.lease_ms) then return { 'busy' } end
    local done = lost(record, true)
    if done ~= 'republished' then return { record.state } end
  elseif record.due_at and tonumber(record.due_at) > NOW then
    return { 'early' } -- a copy of the message, too early; the keeper publishes it when it is due
  end
  if record.state == 'waiting' then return { 'early' } end -- some results of previous steps are missing
  note_arrival(record)
  if a.place then count_under(record, a.place) end
  if held_at_claim(record, a.message) then return { 'held' } end
  local token = tonumber(redis.call('GET', KEY.token) or '0') + 1
  change('SET', KEY.token, int(token))
  local attempt = tonumber(record.attempt or '0') + 1
  local attempts = record.attempts and cjson.decode(record.attempts) or {}
  attempts[#attempts + 1] = { attempt = attempt, worker = a.worker, started_at_ms = NOW }
  unlist(record)
  enter(record, 'running')
  set(record, {
    token = token, owner = a.owner, worker = a.worker, delivery = a.delivery, claim_until = NOW + a.lease_ms,
    attempt = attempt, attempts = cjson.encode(attempts), attempt_open = '1', started_at = record.started_at or NOW,
    due_at = false, progress = false, message = not record.envelope and (record.message or a.message) or nil,
  })
  change('ZADD', KEY.claims, NOW + a.lease_ms, record.id)
  emit_state(record, '"worker": ' .. cjson.encode(a.worker))
  note_celery_result(record, 'STARTED', '{"hostname": ' .. cjson.encode(a.worker) .. '}')
  if record.job_id then
    if attempt == 1 then drop_messages_before(record) end
    if job and job.state == 'queued' then
      enter(job, 'running')
      set(job, { started_at = NOW })
      change('ZREM', KEY.expiring, job.id)
      emit_state(job)
    end
  end
  return right_to_run(record)
end

-- Whether an earlier call of the caller has already done this, and its reply was lost.
local function repeated(record, call, a) return record and a.token and record.last_call == call .. a.token end

-- Whether the caller may write: it has the token, or is the claim owner (the main process of the worker).
local function holds(record, a)
  if not record or record.state ~= 'running' then return false end
  if a.token then return record.token == a.token end
  return record.owner == a.owner
end

-- renew: {owner, ids, tokens, lease_ms}. A token is '' where the owner does not know of a body that runs. Replies 'ok'
-- | 'cancel' | 'lost' | 'ended' | 'waiting' | 'unknown' per id. 'ended': this owner has finished the job; its child is
-- ending and must not be interrupted. 'waiting': it is not claimed yet, or its claim was taken back.
function T.renew(a)
  local replies = {}
  for i, id in ipairs(a.ids) do
    local read =
      redis.pcall('HMGET', record_key(id), 'state', 'owner', 'cancel_requested_at', 'ended_by', 'token')
    local state, owner, cancel, ended_by, token = unpack(read)
    local is_same = a.tokens[i] == '' or a.tokens[i] == token
    if not state then -- also of a damaged record: the other jobs go on
      replies[i] = 'unknown'
    elseif state == 'running' and owner == a.owner and is_same then
      set(hand_of(id), { claim_until = NOW + a.lease_ms })
      change('ZADD', KEY.claims, NOW + a.lease_ms, id)
      replies[i] = cancel and 'cancel' or 'ok'
    elseif FINAL[state] and ended_by == a.owner then
      replies[i] = 'ended'
    elseif state == 'running' or FINAL[state] then
      replies[i] = 'lost'
    else
      replies[i] = 'waiting'
    end
  end
  return replies
end

-- progress: {id, token, progress?, logs: [text...], checkpoint?}. Replies 'ok' | 'cancel' | 'refused'.
function T.progress(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  for _, line in ipairs(a.logs or {}) do emit(record, 'log', line) end
  if a.progress then
    set(record, { progress = a.progress })
    emit(record, 'progress', a.progress)
    note_celery_result(record, 'PROGRESS', a.progress)
  end
  if a.checkpoint then
    set(record, { has_checkpoint = '1' })
    change('SET', KEY.checkpoint .. record.id, a.checkpoint)
  end
  return record.cancel_requested_at and 'cancel' or 'ok'
end

-- submit: {id, token, job: record}. Accept a job as a child of a running one, if it has not been. If that is a step of
-- a job with an `expand()`, this waits for the child. Replies 'ok' | 'cancel' | 'full' | 'refused'.
function T.submit(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  if record.cancel_requested_at then return 'cancel' end
  if field_of(a.job.id, 'state') or redis.call('ZSCORE', KEY.gone, a.job.id) then return 'ok' end
  if redis.call('SCARD', KEY.children .. record.id) >= MOST_CHILDREN then return 'full' end
  local job = record.job_id and load(record.job_id)
  local awaiting = job and expanding_step(job)
  if awaiting then
    set(awaiting, { waits_for = tonumber(awaiting.waits_for) + 1 })
    a.job.awaited_by = awaiting.id
  end
  write(a.job)
  set(record, { has_children = '1' })
  change('SADD', KEY.children .. record.id, a.job.id)
  return 'ok'
end

-- finish: {id, token | owner, state: succeeded|failed, result? | error?, artifacts?}. Replies 'ok' | 'refused', or
-- 'tolerated' for the failure of a step that may fail.
-- Without a claim (no worker could start the message) only a queued job can be failed.
function T.finish(a)
  local record = load(a.id)
  local unclaimed = record and a.unclaimed and record.state == 'queued'
  if repeated(record, 'finish ', a) then return is_tolerated(record) and 'tolerated' or 'ok' end
  if not holds(record, a) and not unclaimed then return 'refused' end
  local owner = record.owner or ''
  if record.cancel_requested_at and a.state ~= 'succeeded' then
    stop(record, a.artifacts)
  else
    settle(record, a.state, a)
  end
  if a.token then set(record, { last_call = 'finish ' .. a.token, ended_by = owner }) end
  return is_tolerated(record) and 'tolerated' or 'ok'
end

-- stopped: {id, token | owner, artifacts?}. A running job has stopped on request. Replies 'ok', or 'refused' if it
-- has another claim owner or has ended.
function T.stopped(a)
  local record = load(a.id)
  if repeated(record, 'stopped ', a) then return 'ok' end
  if not holds(record, a) then return 'refused' end
  local owner = record.owner or ''
  stop(record, a.artifacts)
  if a.token then set(record, { last_call = 'stopped ' .. a.token, ended_by = owner }) end
  return 'ok'
end

-- End an attempt of a job that is to be tried again later; `fields` are what else changes.
local function delay(record, call, a, outcome, delay_ms, fields)
  local last_call = call .. a.token
  if record.cancel_requested_at then
    local owner = record.owner
    stop(record)
    set(record, { last_call = last_call, ended_by = owner })
    return 'ok'
  end
  close_attempt(record, outcome)
  unlist(record)
  enter(record, 'retrying')
  set(record, {
    due_at = NOW + delay_ms, error = a.error, last_call = last_call, token = false, owner = false, claim_until = false,
  })
  set(record, fields)
  change('ZADD', KEY.due, record.due_at, record.id)
  emit_state(record, '"due_at_ms": ' .. record.due_at .. ', "error": ' .. a.error)
  local exception = celery_exception('TransientFailure', 'shared.errors', cjson.decode(a.error).message)
  note_celery_result(record, 'RETRY', exception)
  return 'ok'
end

-- retry: {id, token, delay_ms, error}. Replies 'ok' | 'refused'.
function T.retry(a)
  local record = load(a.id)
  if repeated(record, 'retry ', a) then return 'ok' end
  if not holds(record, a) then return 'refused' end
  local retries = tonumber(record.retries or '0') + 1
  return delay(record, 'retry ', a, 'retrying', a.delay_ms, { retries = retries, given_back_at = false })
end

-- give_back: {id, token, contract, for_ms, least_ms, most_ms, error}. A worker with this version of the contract
-- refuses the parameters, which another version has accepted: leave the job to a worker with that one, without blame.
-- The next attempt is half the time later that has passed since the first, within the bounds. Replies 'ok' |
-- 'refused', or 'kept' if the caller must fail the job: the first was `for_ms` ago, the versions are the same, or no
-- version has accepted the job, because it is of another Celery client.
function T.give_back(a)
  local record = load(a.id)
  if repeated(record, 'give_back ', a) then return 'ok' end
  if not holds(record, a) then return 'refused' end
  local since = tonumber(record.given_back_at or NOW)
  local waited_ms = NOW - since
  if not record.contract or record.contract == a.contract or waited_ms >= a.for_ms then return 'kept' end
  local delay_ms = math.floor(math.min(math.max(a.least_ms, waited_ms / 2), a.most_ms))
  return delay(record, 'give_back ', a, 'released', delay_ms, { given_back_at = since })
end

-- release: {id, owner, crashed, token?}. The claim owner releases a job: it shuts down, or its child died.
-- Replies 'refused' | 'released' | 'republished' | 'quarantined' | 'cancelled'.
function T.release(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  if a.crashed or record.cancel_requested_at then return lost(record) end
  close_attempt(record, 'released')
  unlist(record)
  enter(record, 'queued', true)
  set(record, { token = false, owner = false, claim_until = false })
  publish_first(record)
  emit_state(record, '"reason": "its worker shut down"')
  return 'released'
end
