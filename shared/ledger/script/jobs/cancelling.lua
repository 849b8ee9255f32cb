-- Cancelling a job: at once, or by a request to the worker that runs it.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change load set (records)
-- luacheck: read globals emit (events)
-- luacheck: read globals error_document (results)
-- luacheck: read globals close_steps settle (steps)
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

-- A job or step has ended: cancel what it has submitted, unless it succeeded.
end_children = function(record)
  for _, id in ipairs(record.state == 'succeeded' and {} or redis.call('SMEMBERS', KEY.children .. record.id)) do
    cancel(load(id), 'The job that submitted it ended: ' .. record.state .. '.')
  end
  set(record, { has_children = false })
  change('DEL', KEY.children .. record.id)
end
