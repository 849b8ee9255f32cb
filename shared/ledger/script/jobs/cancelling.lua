-- Cancelling a job: at once, or by a request to the worker that runs it.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change load set (records)
-- luacheck: read globals emit (events)
-- luacheck: read globals error_document (results)
-- luacheck: globals cancel_all (steps)
-- luacheck: read globals close_steps expanding_step settle (steps)
-- luacheck: globals end_children (endings)

-- Replies as `T.cancel`.
local function cancel(record, reason)
  if not record then return { 'unknown' } end
  if FINAL[record.state] then return { 'ended', record.state } end
  local document = error_document('cancelled', reason, '')
  local progressed = record.started_at and 'started' or ''
  if record.steps then
    settle(record, 'cancelled', { error = document })
    close_steps(record, 'cancelled', reason)
    return { 'cancelled', progressed }
  end
  if record.state == 'running' then
    set(record, { cancel_requested_at = NOW, cancel_reason = reason })
    emit(record, 'cancel_requested', cjson.encode({ reason = reason }))
    change('PUBLISH', KEY.cancels, record.id)
    return { 'requested', progressed }
  end
  settle(record, 'cancelled', { error = document })
  return { 'cancelled', progressed }
end

-- cancel: {id, reason}. Replies {'unknown'} | {'ended', state} | {'cancelled', 'started' or ''} | {'requested',
-- 'started'}.
function T.cancel(a) return cancel(load(a.id), a.reason) end

cancel_all = function(ids, reason)
  for _, id in ipairs(ids) do cancel(load(id), reason) end
end

-- A job or step has ended: cancel what it has submitted, unless it succeeded; note it if an `expand()` gets the
-- results.
end_children = function(record)
  local ids = redis.call('SMEMBERS', KEY.children .. record.id)
  local job = record.job_id and load(record.job_id)
  set(record, { has_children = false, children = job and expanding_step(job) and cjson.encode(ids) })
  change('DEL', KEY.children .. record.id)
  if record.state ~= 'succeeded' then
    cancel_all(ids, 'The job that submitted it ended: ' .. record.state .. '.')
  end
end
