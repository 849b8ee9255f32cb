-- Accepting jobs.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change count field_of hand_of int load record_key set take_in_hand (records)
-- luacheck: read globals begin_events (events)
-- luacheck: read globals store_celery_result (results)
-- luacheck: read globals keep_lineage refer (files)
-- luacheck: read globals enter note_published publish (queues)

local function index(record)
  local id = record.id
  change('ZADD', KEY.jobs, 0, id)
  change('ZADD', KEY.kind .. record.kind, 0, id)
  change('ZADD', KEY.queue .. record.queue, 0, id)
  for _, tag in ipairs(cjson.decode(record.tags)) do change('ZADD', KEY.tag .. tag, 0, id) end
  if record.schedule then
    change('ZADD', KEY.schedule .. record.schedule, 0, id)
    local schedule = KEY.redbeat .. record.schedule
    if redis.call('EXISTS', schedule) == 1 then change('HSET', schedule, 'last_job', id) end
  end
end

local function create(record)
  record.created_at = int(NOW)
  take_in_hand(record)
  set(record, record)
  if not record.steps and not record.reused_from then count('sent|' .. record.kind .. '|' .. record.queue) end
  if not record.job_id then count('submitted|' .. record.kind) end
end

-- Schedule the job, or publish its message.
local function start_waiting(record)
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    change('ZADD', KEY.due, record.due_at, record.id)
  else
    enter(record, 'queued')
    if record.message then publish(record) end
  end
  if record.expires_at then change('ZADD', KEY.expiring, record.expires_at, record.id) end
end

-- Write jobs, and publish or schedule them. `with_steps` of a record has the records of its steps. Returns the ids.
local function write(jobs)
  local ids = {}
  for i, record in ipairs(jobs) do
    ids[i] = record.id
    local steps = record.with_steps
    record.with_steps = nil
    create(record)
    index(record)
    keep_lineage(record)
    refer(record)
    if record.retried_from and redis.call('EXISTS', record_key(record.retried_from)) == 1 then
      set(hand_of(record.retried_from), { retried_as = record.id })
    end
    if steps then
      for _, step in ipairs(steps) do
        create(step)
        if step.reused_from then
          store_celery_result(step, 'SUCCESS', step.result)
        elseif step.waits_for == '0' then
          start_waiting(step)
        else
          enter(step, 'waiting')
        end
      end
    end
    start_waiting(record)
    begin_events(record)
  end
  return ids
end

local function replayed(ids)
  for _, id in ipairs(ids) do
    if field_of(id, 'state') then return 'replayed' end
  end
  return 'gone'
end

-- accept: submissions = [{until?, idempotency_key?, fingerprint?, idempotency_ms?, jobs: [record...]}], each all or
-- nothing. After `until` nothing is written, because the client was told so. A submission written before is unchanged:
-- the caller lost the reply and repeats the call. Replies, one per submission:
-- {'accepted', created_at} | {'replayed', created_at, ids...} | {'gone', created_at, ids...} (all of them were deleted)
-- | {'conflict'} | {'late', the time now}
function T.accept(a)
  local replies, known_here = {}, {}
  for n, submission in ipairs(a) do
    local written_at = field_of(submission.jobs[1].id, 'created_at')
    local key = submission.idempotency_key and KEY.idempotency .. submission.idempotency_key
    local text = key and redis.call('GET', key)
    local known = key and known_here[key] or text and cjson.decode(text)
    if written_at then
      replies[n] = { 'accepted', written_at }
    elseif submission['until'] and NOW > submission['until'] then
      replies[n] = { 'late', int(NOW) }
    elseif known then
      local is_same = known.fingerprint == submission.fingerprint
      replies[n] = is_same and { replayed(known.ids), known.created_at, unpack(known.ids) } or { 'conflict' }
    else
      local ids = write(submission.jobs)
      if key then
        known_here[key] = { fingerprint = submission.fingerprint, ids = ids, created_at = int(NOW) }
        change('SET', key, cjson.encode(known_here[key]), 'PX', submission.idempotency_ms)
      end
      replies[n] = { 'accepted', int(NOW) }
    end
  end
  return replies
end

-- published: {ids}. The messages of these jobs in the outbox have been published.
function T.published(a)
  for _, id in ipairs(a.ids) do
    change('ZREM', KEY.outbox, id)
    local record = load(id)
    if record and record.state == 'queued' then note_published(record) end
  end
  return 'ok'
end
