-- How jobs and steps end, and what the end of one means for the others.

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
  if outcome ~= 'lost' and outcome ~= 'released' then -- it ran to an end of its own
    local lasted_ms = math.max(0, NOW - last.started_at_ms)
    count('ran|' .. record.kind .. '|' .. bucket(lasted_ms / 1000))
    count('ran_ms|' .. record.kind, lasted_ms)
  end
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

-- What is never published again need not be kept: a step's message carries all the steps after it.
local function drop_message(id)
  redis.call('HDEL', record_key(id), 'message')
  redis.call('ZREM', P .. 'outbox', id)
end

-- The files of the jobs whose steps a job uses again stay as long as its own.
local function keep_lineage(record)
  if record.reuses ~= '1' then return end
  local retention_ms = tonumber(record.retention_ms)
  local source = record.retried_from and load(record.retried_from)
  while source do
    if redis.call('ZSCORE', P .. 'ended', source.id) then redis.call('ZADD', P .. 'ended', 'GT', NOW + retention_ms, source.id) end
    local ids = source.steps and cjson.decode(source.steps) or {}
    ids[#ids + 1] = source.id
    for _, id in ipairs(ids) do redis.call('PEXPIRE', record_key(id), retention_ms + 86400000, 'GT') end
    redis.call('PEXPIRE', P .. 'events:' .. source.id, retention_ms + 86400000, 'GT')
    source = source.retried_from and load(source.retried_from)
  end
end

-- A step that may fail, and did: what follows it goes on without its result.
local function is_tolerated(record)
  return record.may_fail == '1' and (record.state == 'failed' or record.state == 'quarantined')
end

-- The result of a workflow is that of its last step; of several in parallel, how many of all steps did what.
local function workflow_result(job, last)
  -- A job of a version before `ends` was written down has the result of the step that ended last.
  local ends, failed = job.ends and cjson.decode(job.ends) or { last.id }, tonumber(job.tolerated or '0')
  if #ends == 1 then return redis.call('HGET', record_key(ends[1]), 'result') or 'null' end
  return '{"succeeded_count": ' .. int(tonumber(job.done) - failed) .. ', "failed_count": ' .. int(failed) .. '}'
end

-- What the end of a step means for its job and for the steps after it.
local function step_ended(step)
  local job = load(step.job_id)
  if not job then return end
  local tolerated = is_tolerated(step)
  if step.state == 'succeeded' or tolerated then
    set(job, { done = tonumber(job.done or '0') + 1 })
    if tolerated then set(job, { tolerated = tonumber(job.tolerated or '0') + 1 }) end
    for _, id in ipairs(cjson.decode(step.before or '[]')) do
      local follower = load(id)
      if follower and follower.state == 'waiting' then
        local waits_for = tonumber(follower.waits_for) - 1
        set(follower, { waits_for = waits_for })
        if waits_for == 0 then -- Celery publishes it now; the keeper looks after it if that fails
          enter(follower, 'queued')
          note_published(follower)
          emit_state(follower)
        end
      end
    end
    if FINAL[job.state] then return end
    if tonumber(job.done) == tonumber(job.total) then
      settle(job, 'succeeded', { result = workflow_result(job, step) })
    else
      emit(job, 'progress', cjson.encode({ current = tonumber(job.done), total = tonumber(job.total), unit = 'steps', message = '' }))
    end
  elseif not FINAL[job.state] then
    settle(job, step.state, { error = '{"step": ' .. cjson.encode(step.step) .. ', ' .. string.sub(step.error, 2) })
    close_steps(job, 'skipped', 'The step ' .. step.step .. ' ' .. step.state .. '.')
  end
end

-- Whether somebody wants to be told of the job's end; the keeper sees to it.
local function wants_callback(record)
  local options = record.options or ''
  return string.find(options, '"callback_url"', 1, true) and type(cjson.decode(options).callback_url) == 'string'
end

-- End a job or step: outcome, timings, attempts, worker, indexes, event and Celery's own result, together.
-- `alone` is true where the caller ends the job itself.
settle = function(record, state, outcome, alone)
  close_attempt(record, state)
  unlist(record)
  enter(record, state)
  if not record.steps then count('processed|' .. record.kind .. '|' .. state) end
  if not record.job_id then count('ended|' .. record.kind .. '|' .. state) end
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
  if not record.job_id then
    redis.call('ZADD', P .. 'ended', NOW + retention_ms, record.id)
    unrefer(record)
  end
  if record.job_id then
    if not alone then step_ended(record) end
    return
  end
  if wants_callback(record) then redis.call('ZADD', P .. 'callbacks', NOW, record.id) end
  -- A floor under the keeper's own clean-up. Steps stay as long as their job, which may wait longer than they do.
  local keys = { record_key(record.id), P .. 'events:' .. record.id }
  drop_message(record.id)
  for _, id in ipairs(record.steps and cjson.decode(record.steps) or {}) do
    keys[#keys + 1] = record_key(id)
    drop_message(id)
  end
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, retention_ms + 86400000) end
  keep_lineage(record)
end
