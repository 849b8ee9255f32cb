-- How jobs and steps end.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals CELERY_STATUS (states)
-- luacheck: read globals NOW change count record_key set (records)
-- luacheck: read globals bucket emit_state (events)
-- luacheck: read globals celery_exception error_document note_row store_celery_result (results)
-- luacheck: read globals keep_lineage unrefer (files)
-- luacheck: read globals enter unlist (holds)
-- luacheck: globals settle (steps)
-- luacheck: read globals child_ended close_steps drop_message step_ended (steps)

local function close_attempt(record, outcome)
  if not record.attempt or record.attempt_open ~= '1' then return end
  local list = cjson.decode(record.attempts)
  local last = list[#list]
  last.finished_at_ms = NOW
  last.outcome = outcome
  set(record, { attempts = cjson.encode(list), attempt_open = false })
  note_row(record.id)
  if outcome ~= 'lost' and outcome ~= 'released' then -- it ran to its end
    local lasted_ms = math.max(0, NOW - last.started_at_ms)
    count('ran|' .. record.kind .. '|' .. bucket(lasted_ms / 1000))
    count('ran_ms|' .. record.kind, lasted_ms)
  end
end

-- Whether the job has a callback, which the keeper submits.
local function wants_callback(record)
  local options = record.options or ''
  return string.find(options, '"callback_url"', 1, true) and type(cjson.decode(options).callback_url) == 'string'
end

local end_children -- defined later; a job and its children end each other

-- End a job or step: outcome, times, attempts, worker, indexes, event and Celery's result together.
-- `alone` is true if the caller ends the job itself.
settle = function(record, state, outcome, alone)
  close_attempt(record, state)
  unlist(record)
  enter(record, state)
  if not record.steps then count('processed|' .. record.kind .. '|' .. state) end
  if not record.job_id then count('ended|' .. record.kind .. '|' .. state) end
  note_row(record.id)
  local retention_ms = tonumber(record.retention_ms)
  set(record, {
    finished_at = NOW, result = outcome.result or false, error = outcome.error or false,
    token = false, owner = false, claim_until = false, due_at = false,
    artifacts = outcome.artifacts or record.artifacts or '[]',
  })
  if state == 'succeeded' then
    store_celery_result(record, 'SUCCESS', outcome.result)
  else
    local document = cjson.decode(outcome.error)
    local exc_type, module = 'TaskFailure', 'shared.errors'
    if CELERY_STATUS[state] == 'REVOKED' then exc_type, module = 'TaskRevokedError', 'celery.exceptions' end
    local exception = celery_exception(exc_type, module, document.code .. ': ' .. document.message)
    store_celery_result(record, CELERY_STATUS[state], exception)
  end
  emit_state(record, outcome.error and '"error": ' .. outcome.error)
  if record.has_checkpoint then
    set(record, { has_checkpoint = false })
    change('DEL', KEY.checkpoint .. record.id)
  end
  if record.has_children then end_children(record) end
  if record.awaited_by then child_ended(record) end
  local unique = record.unique_key and KEY.unique .. record.unique_key
  if unique and redis.pcall('GET', unique) == record.id then change('DEL', unique) end
  if not record.job_id then
    change('ZADD', KEY.ended, NOW + retention_ms, record.id)
    unrefer(record)
  end
  if record.job_id then
    change('ZREM', KEY.open_steps, record.id)
    if not alone then step_ended(record) end
    return
  end
  if wants_callback(record) then change('ZADD', KEY.callbacks, NOW, record.id) end
  -- The fallback if the keeper does not delete it. Steps are kept as long as their job, which may end later.
  local keys = { record_key(record.id), KEY.events .. record.id }
  if record.file_owner then keys[#keys + 1] = KEY.file_owner .. record.file_owner end
  drop_message(record.id)
  for _, id in ipairs(record.steps and cjson.decode(record.steps) or {}) do
    keys[#keys + 1] = record_key(id)
    drop_message(id)
  end
  for _, key in ipairs(keys) do change('PEXPIRE', key, retention_ms + 86400000) end
  keep_lineage(record)
end

local function quarantine(record)
  settle(record, 'quarantined', { error = error_document('quarantined',
    'It lost ' .. record.crashes .. ' workers, so it is not tried again.',
    'Look at the attempts and the workers\' logs: out of memory, a crash in native code, or a kill. Then rerun it.') })
end

local function expire(record)
  local document = error_document('expired', 'It did not start before its expiry.',
    'Submit it again, with a longer expires_in_s.')
  settle(record, 'expired', { error = document })
  if record.steps then close_steps(record, 'expired', 'The job expired.') end
end

-- End a running job that was cancelled and has stopped.
local function stop(record, artifacts)
  local document = error_document('cancelled', record.cancel_reason or 'Cancelled on request.', '')
  settle(record, 'cancelled', { error = document, artifacts = artifacts })
  return 'cancelled'
end
