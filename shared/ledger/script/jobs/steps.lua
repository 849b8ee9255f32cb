-- The steps of a workflow: what they wait for, and the effect of the end of one on the others.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change field_of hand_of int load set (records)
-- luacheck: read globals emit emit_state (events)
-- luacheck: read globals error_document (results)
-- luacheck: read globals has_message (messages)
-- luacheck: read globals note_published (queues)
-- luacheck: read globals enter publish (holds)

local settle, cancel_all -- defined later; a job, its steps and their children end each other

local function steps_of(job)
  local steps = {}
  for _, id in ipairs(cjson.decode(job.steps)) do steps[#steps + 1] = load(id) end
  return steps
end

-- End every step of a job that has not ended: running ones are requested to stop, the others are closed. What the
-- job waits for besides its steps is cancelled.
local function close_steps(job, state, reason)
  local steps = steps_of(job)
  for _, step in ipairs(steps) do
    if step.state == 'running' then
      set(step, { cancel_requested_at = NOW, cancel_reason = reason })
      change('PUBLISH', KEY.cancels, step.id)
    elseif not FINAL[step.state] then
      settle(step, state, { error = error_document(state, reason, '') }, true)
    end
  end
  for _, step in ipairs(steps) do
    if step.children then cancel_all(cjson.decode(step.children), reason) end
  end
end

-- Delete a message that is never published again: the message of a step contains all later steps.
local function drop_message(id)
  set(hand_of(id), { message = false, envelope = false })
  change('ZREM', KEY.outbox, id)
end

-- Whether a step failed and may fail: later steps continue without its result.
local function is_tolerated(record)
  return record.may_fail == '1' and (record.state == 'failed' or record.state == 'quarantined')
end

-- The result of a workflow is that of its last step; if it ends in parallel, the numbers of succeeded and failed steps.
local function workflow_result(job, last)
  -- A job of a version without `ends` has the result of the step that ended last.
  local ends, failed = job.ends and cjson.decode(job.ends) or { last.id }, tonumber(job.tolerated or '0')
  if #ends == 1 and job.counts_steps ~= '1' then return field_of(ends[1], 'result') or 'null' end
  return '{"succeeded_count": ' .. int(tonumber(job.done) - failed) .. ', "failed_count": ' .. int(failed) .. '}'
end

local function emit_progress(job)
  local progress = { current = tonumber(job.done), total = tonumber(job.total), unit = 'steps', message = '' }
  emit(job, 'progress', cjson.encode(progress))
end

-- The step that calls `expand()` for a job, if it has not run yet. It is the last one until it has added others, and
-- the only one of the kind of the job.
local function expanding_step(job)
  local ids = cjson.decode(job.steps)
  local last = load(ids[#ids])
  if last and last.kind == job.kind and last.state == 'waiting' then return last end
end

-- One of what a step waits for has ended. Returns the step if it was the last of that.
local function wait_for_less(id)
  local record = load(id)
  if not record or record.state ~= 'waiting' then return end
  local waits_for = tonumber(record.waits_for) - 1
  set(record, { waits_for = waits_for })
  if waits_for > 0 then return end
  enter(record, 'queued')
  return record
end

-- Apply the end of a child to the step that gets its result. Celery does not publish that step now, and has perhaps
-- done so too early. If a version without this has planned the job, the keeper does.
local function child_ended(child)
  local parent = child.state ~= 'succeeded' and load(child.parent)
  if parent then set(parent, { children_failed = '1' }) end
  local step = wait_for_less(child.awaited_by)
  if not step then return end
  if has_message(step) then publish(step) else note_published(step) end
  emit_state(step)
end

-- Apply the end of a step to its job and to the steps after it.
local function step_ended(step)
  local job = load(step.job_id)
  if not job then return end
  local tolerated = is_tolerated(step)
  if step.state == 'succeeded' or tolerated then
    set(job, { done = tonumber(job.done or '0') + 1 })
    if tolerated then set(job, { tolerated = tonumber(job.tolerated or '0') + 1 }) end
    for _, id in ipairs(cjson.decode(step.before or '[]')) do
      local follower = wait_for_less(id)
      if follower then -- Celery publishes it now, or the keeper if that fails
        note_published(follower)
        emit_state(follower)
      end
    end
    if FINAL[job.state] then return end
    emit_progress(job)
    if job.done == job.total then settle(job, 'succeeded', { result = workflow_result(job, step) }) end
  elseif not FINAL[job.state] then
    settle(job, step.state, { error = '{"step": ' .. cjson.encode(step.step) .. ', ' .. string.sub(step.error, 2) })
    close_steps(job, 'skipped', 'The step ' .. step.step .. ' ' .. step.state .. '.')
  end
end

-- The results of the previous steps in order, as JSON text; null for a failed one that may fail.
local function upstream_of(record)
  local results = {}
  for n, id in ipairs(cjson.decode(record.after or '[]')) do
    results[n] = field_of(id, 'result') or 'null'
  end
  return '[' .. table.concat(results, ', ') .. ']'
end

-- A running step has its message, so previous steps need not publish it again: see republish. A step that several steps
-- follow keeps its message until the job ends.
local function drop_messages_before(record)
  for _, id in ipairs(cjson.decode(record.after or '[]')) do
    if field_of(id, 'before') == '["' .. record.id .. '"]' then drop_message(id) end
  end
end
