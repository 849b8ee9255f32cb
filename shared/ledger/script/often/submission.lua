-- Accepting jobs.

-- luacheck: read globals NOW P int load record_key (records)
-- luacheck: read globals count emit_state (events)
-- luacheck: read globals store_celery_result (results)
-- luacheck: read globals keep_lineage refer (files)
-- luacheck: read globals enter note_published publish (queues)

local function index(record)
  local id = record.id
  redis.call('ZADD', P .. 'jobs', 0, id)
  redis.call('ZADD', P .. 'kind:' .. record.kind, 0, id)
  redis.call('ZADD', P .. 'queue:' .. record.queue, 0, id)
  for _, tag in ipairs(cjson.decode(record.tags)) do redis.call('ZADD', P .. 'tag:' .. tag, 0, id) end
  if record.schedule then
    redis.call('ZADD', P .. 'schedule:' .. record.schedule, 0, id)
    local schedule = P .. 'redbeat:' .. record.schedule
    if redis.call('EXISTS', schedule) == 1 then redis.call('HSET', schedule, 'last_job', id) end
  end
end

local function create(record)
  record.created_at = int(NOW)
  local flat = {}
  for name, value in pairs(record) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', record_key(record.id), unpack(flat))
  if not record.steps and not record.reused_from then count('sent|' .. record.kind .. '|' .. record.queue) end
  if not record.job_id then count('submitted|' .. record.kind) end
end

-- The job waits for its time, or its message goes out.
local function start_waiting(record)
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    redis.call('ZADD', P .. 'due', record.due_at, record.id)
  else
    enter(record, 'queued')
    if record.message then publish(record) end
  end
  if record.expires_at then redis.call('ZADD', P .. 'expiring', record.expires_at, record.id) end
end

-- Write jobs down and send them on their way. A record has its steps' records in `with_steps`. Returns the ids.
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
      redis.call('HSET', record_key(record.retried_from), 'retried_as', record.id)
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
    emit_state(record)
  end
  return ids
end

-- accept: submissions = [{idempotency_key?, fingerprint?, idempotency_ms?, jobs: [record...]}], each all or nothing.
-- Replies, one a submission:
-- {'accepted', created_at} | {'replayed', ids...} | {'conflict'}
function T.accept(a)
  local replies = {}
  for n, submission in ipairs(a) do
    local key = submission.idempotency_key and P .. 'idempotency:' .. submission.idempotency_key
    local known = key and redis.call('GET', key)
    if known then
      known = cjson.decode(known)
      local is_same = known.fingerprint == submission.fingerprint
      replies[n] = is_same and { 'replayed', known.created_at, unpack(known.ids) } or { 'conflict' }
    else
      local ids = write(submission.jobs)
      if key then
        local value = cjson.encode({ fingerprint = submission.fingerprint, ids = ids, created_at = int(NOW) })
        redis.call('SET', key, value, 'PX', submission.idempotency_ms)
      end
      replies[n] = { 'accepted', int(NOW) }
    end
  end
  return replies
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
