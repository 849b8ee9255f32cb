-- Cancelling a job: at once, or by a request to the worker that runs it.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals NOW change load set (records)
-- luacheck: read globals emit (events)
-- luacheck: read globals error_document (results)
-- luacheck: read globals close_steps settle (steps)

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
    change('PUBLISH', KEY.cancels, record.id)
    return { 'requested' }
  end
  settle(record, 'cancelled', { error = document })
  return { 'cancelled' }
end
