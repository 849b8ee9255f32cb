-- Steps that a running step adds to its workflow.

-- luacheck: read globals FINAL (states)
-- luacheck: read globals load set (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals emit_progress (steps)
-- luacheck: read globals refer (files)
-- luacheck: read globals write_steps (submission)
-- luacheck: read globals holds (claims)

-- expand: {id, token, steps: [record...], counts_steps}. Add steps to the job of a running step, once, and publish the
-- first ones. Without steps the job ends with those before it. Replies 'ok' | 'cancel' | 'refused'.
function T.expand(a)
  local record = load(a.id)
  if not holds(record, a) then return 'refused' end
  local job = record.job_id and load(record.job_id)
  if record.cancel_requested_at or not job or FINAL[job.state] then return 'cancel' end
  if job.expanded then return 'ok' end
  if #a.steps == 0 then
    set(job, { expanded = '1', ends = record.after })
    return 'ok'
  end
  local ids, first, ends, reused = cjson.decode(job.steps), {}, {}, 0
  for _, step in ipairs(a.steps) do
    ids[#ids + 1] = step.id
    if step.after == cjson.encode({ record.id }) then first[#first + 1] = step.id end
    if not step.before or step.before == '[]' then ends[#ends + 1] = step.id end
    if step.reused_from then reused = reused + 1 end
  end
  set(record, { before = cjson.encode(first) })
  set(job, {
    expanded = '1', steps = cjson.encode(ids), ends = cjson.encode(ends), counts_steps = a.counts_steps and '1',
    total = tonumber(job.total) + #a.steps, done = tonumber(job.done or '0') + reused,
  })
  for _, step in ipairs(write_steps(a.steps)) do emit_state(step) end
  refer(job)
  emit_progress(job)
  return 'ok'
end
