-- Accepting jobs.

local function index(record)
  local id = record.id
  redis.call('ZADD', P .. 'jobs', 0, id)
  redis.call('ZADD', P .. 'kind:' .. record.kind, 0, id)
  redis.call('ZADD', P .. 'queue:' .. record.queue, 0, id)
  for _, tag in ipairs(cjson.decode(record.tags)) do redis.call('ZADD', P .. 'tag:' .. tag, 0, id) end
end

local function create(record)
  record.created_at = int(NOW)
  local flat = {}
  for name, value in pairs(record) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  redis.call('HSET', record_key(record.id), unpack(flat))
  if not record.steps then count('sent|' .. record.kind .. '|' .. record.queue) end
  if not record.job_id then count('submitted|' .. record.kind) end
end

-- The job waits for its time, or its message goes out.
local function start_waiting(record)
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    redis.call('ZADD', P .. 'due', record.due_at, record.id)
  else
    enter(record, 'queued')
    set(record, { queued_at = NOW })
    if record.message then publish(record) end
  end
  if record.expires_at then redis.call('ZADD', P .. 'expiring', record.expires_at, record.id) end
end

-- accept: submissions = [{idempotency_key?, fingerprint?, idempotency_ms?, jobs: [record...]}], each all or nothing.
-- A record has its steps' records in `with_steps`. Replies, one a submission:
-- {'accepted', created_at} | {'replayed', ids...} | {'conflict'}
function T.accept(a)
  local replies = {}
  for n, submission in ipairs(a) do
    local key = submission.idempotency_key and P .. 'idempotency:' .. submission.idempotency_key
    local known = key and redis.call('GET', key)
    if known then
      known = cjson.decode(known)
      replies[n] = known.fingerprint == submission.fingerprint and { 'replayed', known.created_at, unpack(known.ids) } or { 'conflict' }
    else
      local ids = {}
      for i, record in ipairs(submission.jobs) do
        ids[i] = record.id
        local steps = record.with_steps
        record.with_steps = nil
        create(record)
        index(record)
        if steps then
          for _, step in ipairs(steps) do
            create(step)
            if step.waits_for == '0' then start_waiting(step) else enter(step, 'waiting') end
          end
        end
        start_waiting(record)
        emit_state(record)
      end
      if key then
        local value = cjson.encode({ fingerprint = submission.fingerprint, ids = ids, created_at = int(NOW) })
        redis.call('SET', key, value, 'PX', submission.idempotency_ms)
      end
      replies[n] = { 'accepted', int(NOW) }
    end
  end
  return replies
end
