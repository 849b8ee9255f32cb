-- Accepting jobs.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals FINAL (states)
-- luacheck: read globals MOST_VALUES NOW change change_alike change_hashes count field_of hand_of int (records)
-- luacheck: read globals is_number listed load must_be must_be_text record_key set take_in_hand (records)
-- luacheck: read globals begin_events (events)
-- luacheck: read globals note_row store_celery_result (results)
-- luacheck: read globals keep_lineage refer (files)
-- luacheck: read globals has_message (messages)
-- luacheck: read globals is_paused list_of note_published numbered order published_key (queues)
-- luacheck: read globals enter publish waiting_set (holds)
-- luacheck: globals cancel_all (steps)

local function index(record)
  local id, member = record.id, listed(record)
  change('ZADD', KEY.jobs, 0, member)
  change('ZADD', KEY.kind .. record.kind, 0, member)
  change('ZADD', KEY.queue .. record.queue, 0, member)
  for _, tag in ipairs(cjson.decode(record.tags)) do change('ZADD', KEY.tag .. tag, 0, member) end
  if record.schedule then
    change('ZADD', KEY.schedule .. record.schedule, 0, member)
    local schedule = KEY.redbeat .. record.schedule
    if redis.call('EXISTS', schedule) == 1 then change('HSET', schedule, 'last_job', id) end
  end
end

local function create(record)
  record.created_at = int(NOW)
  take_in_hand(record)
  set(record, record)
  if record.job_id and not record.reused_from then change('ZADD', KEY.open_steps, 0, record.id) end
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
    if has_message(record) then publish(record) end
  end
  if record.expires_at then change('ZADD', KEY.expiring, record.expires_at, record.id) end
end

-- Write steps of a job, and publish or schedule those that wait for none of the others. Returns these.
local function write_steps(steps)
  local started = {}
  for _, step in ipairs(steps) do
    create(step)
    if step.reused_from then
      store_celery_result(step, 'SUCCESS', step.result)
      note_row(step.id)
    elseif step.waits_for == '0' then
      start_waiting(step)
      started[#started + 1] = step
    else
      enter(step, 'waiting')
    end
  end
  return started
end

-- The job that has not ended and has a unique key; nil if there is none. The state of its record decides, so a key that
-- was left by a deleted job is free.
local function holder_of(unique_key)
  local id = redis.pcall('GET', KEY.unique .. unique_key)
  local state = type(id) == 'string' and field_of(id, 'state')
  if state and not FINAL[state] then return id, state, field_of(id, 'created_at') end
end

-- Whether a job that is being accepted replaces the one that has its unique key. That must have the same concurrency
-- key if it runs, for which the new job waits; it was accepted by an earlier version of the contract if it has not.
local function replaces(job, holder)
  if job.unique_replaces ~= '1' then return false end
  local waits_for_it = field_of(holder, 'concurrency_key') == job.concurrency_key
  return waits_for_it or field_of(holder, 'state') ~= 'running'
end

-- Cancel the job that has a unique key, because a new one replaces it.
local function replace(holder, job)
  set(hand_of(holder), { replaced_by = job.id })
  cancel_all({ holder }, 'Job ' .. job.id .. ' replaced it.')
end

-- Write a job, and publish or schedule it. `with_steps` of a record has the records of its steps.
local function write(record)
  local steps = record.with_steps
  record.with_steps = nil
  create(record)
  index(record)
  keep_lineage(record)
  refer(record)
  if record.unique_key then change('SET', KEY.unique .. record.unique_key, record.id) end
  if record.retried_from and redis.call('EXISTS', record_key(record.retried_from)) == 1 then
    set(hand_of(record.retried_from), { retried_as = record.id })
    note_row(record.retried_from)
  end
  if steps then write_steps(steps) end
  start_waiting(record)
  begin_events(record)
end

local COLUMNS = 3 -- of a job in a group: id, params, message; with an envelope, the message is as it lies on the list

-- Pass the columns of a group. Returns where the first one is.
local function columns_of(group, columns)
  local from, size = columns.next, group.count
  if not is_number(size, 1) or size > MOST_VALUES / 2 or from + COLUMNS * size - 1 > #columns.texts then
    error('count is not the number of jobs in the columns', 0)
  end
  columns.next = from + COLUMNS * size
  return from
end

local function write_one_by_one(group, columns, from, ids)
  for at = from, columns.next - 1, COLUMNS do
    local record = { id = columns.texts[at], params = columns.texts[at + 1] }
    for name, value in pairs(group.alike) do record[name] = value end
    if not record.envelope then record.message = columns.texts[at + 2] end
    write(record)
    ids[#ids + 1] = record.id
  end
end

-- Write the jobs of a group, which differ only in their columns and are published at once: what `write` does for each,
-- in as few commands as possible.
local function write_alike(group, columns, ids)
  local from, record, texts = columns_of(group, columns), group.alike, columns.texts
  if is_paused(record.queue) then return write_one_by_one(group, columns, from, ids) end
  local now, list = int(NOW), list_of(record)
  record.created_at, record.queued_at, record.published_at, record.publishes = now, now, now, '1'
  record.state, record.begins = 'queued', 'queued'
  local place, keys, own = int(order(record)), {}, record.envelope and 2 or 3 -- texts: Redis writes numbers slowly
  local first = { 'HSET', '', 'id', '', 'params', '' }
  if not record.envelope then first[7], first[8] = 'message', '' end
  local alphabetically, by_time, by_place, messages = {}, {}, {}, {}
  for name, value in pairs(record) do
    must_be_text('HSET', name, value)
    first[#first + 1], first[#first + 2] = name, value
  end
  local n = 0
  for at = from, columns.next - 1, COLUMNS do
    local id, message, value = texts[at], texts[at + 2], 2 * n + 1
    n = n + 1
    keys[n], ids[#ids + 1] = record_key(id), id
    alphabetically[value], alphabetically[value + 1] = '0', id
    by_time[value], by_time[value + 1] = now, id
    by_place[value], by_place[value + 1] = place, id
    messages[n] = record.envelope and message or numbered({ message = message, publishes = '1' })
  end
  change_hashes(keys, first, texts, from, COLUMNS, own)
  take_in_hand({ id = texts[from], created_at = now, state = 'queued' })
  if redis.call('EXISTS', unpack(keys)) > 0 then
    for _, key in ipairs(keys) do must_be('hash', key) end
  end
  local indexes = { KEY.jobs, KEY.kind .. record.kind, KEY.queue .. record.queue, KEY.state .. record.state }
  for _, tag in ipairs(cjson.decode(record.tags)) do indexes[#indexes + 1] = KEY.tag .. tag end
  for _, key in ipairs(indexes) do change_alike('ZADD', key, alphabetically) end
  change_alike('ZADD', waiting_set(record), by_place)
  change_alike('ZADD', published_key(list), by_time)
  change_alike('LPUSH', list, messages)
  change('SADD', KEY.lists, list)
  count('sent|' .. record.kind .. '|' .. record.queue, group.count)
  count('submitted|' .. record.kind, group.count)
end

-- Write the jobs of a submission. Returns the ids.
local function write_all(jobs, columns, written_here)
  local ids = {}
  for _, job in ipairs(jobs) do
    if job.alike then
      write_alike(job, columns, ids)
    else
      local key = job.unique_key
      local holder = key and (written_here[key] and written_here[key].id or holder_of(key))
      if holder then replace(holder, job) end
      write(job)
      if key then written_here[key] = job end
      ids[#ids + 1] = job.id
    end
  end
  return ids
end

-- The reply if a unique key of a submission is taken: by a job of the ledger or one that the same call has written,
-- unless the new job replaces it, or by an earlier one of the same submission.
local function holding(jobs, written_here)
  local seen = {}
  for _, job in ipairs(jobs) do
    local key = job.unique_key
    if key then
      local id, state, created_at = holder_of(key)
      local other = written_here[key] or seen[key]
      if other then id, state, created_at = other.id, other.state or 'queued', other.created_at or int(NOW) end
      if id and (seen[key] or not replaces(job, id)) then return { 'taken', created_at, id, state, job.id } end
      seen[key] = job
    end
  end
end

local function replayed(ids)
  for _, id in ipairs(ids) do
    if field_of(id, 'state') then return 'replayed' end
  end
  return 'gone'
end

local function pass_over(jobs, columns)
  for _, job in ipairs(jobs) do
    if job.alike then columns_of(job, columns) end
  end
end

-- accept: submissions = [{until?, idempotency_key?, fingerprint?, idempotency_ms?, jobs: [...]}], each all or nothing.
-- A job is a record, or a group {alike: the fields that its jobs share, count}; the other fields of the jobs of all
-- groups are the arguments of the call that follow: id, params, message of the first, and so on.
-- After `until` nothing is written, because the client was told so. A submission written before is unchanged: the
-- caller lost the reply and repeats the call. Replies, one per submission:
-- {'accepted', created_at} | {'replayed', created_at, ids...} | {'gone', created_at, ids...} (all of them were deleted)
-- | {'conflict'} | {'late', the time now} | {'taken', created_at, id, state of the job that has the unique key of the
-- submitted job, id of the latter}: nothing is written, and the idempotency key remains unused.
function T.accept(a, arguments)
  local replies, known_here, written_here, columns = {}, {}, {}, { texts = arguments, next = 3 }
  for n, submission in ipairs(a) do
    local first, begins_at = submission.jobs[1], columns.next
    local written_at = field_of(first.alike and columns.texts[columns.next] or first.id, 'created_at')
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
      replies[n] = holding(submission.jobs, written_here)
    end
    if not replies[n] then
      local ids = write_all(submission.jobs, columns, written_here)
      if key then
        known_here[key] = { fingerprint = submission.fingerprint, ids = ids, created_at = int(NOW) }
        change('SET', key, cjson.encode(known_here[key]), 'PX', submission.idempotency_ms)
      end
      replies[n] = { 'accepted', int(NOW) }
    end
    if columns.next == begins_at then pass_over(submission.jobs, columns) end
  end
  return replies
end

-- published: {ids, publications}. The messages of these jobs in the outbox have been published, for the n-th time. Of
-- one that has come already that is known, and in the outbox the job may be for the next.
function T.published(a)
  for n, id in ipairs(a.ids) do
    local record = load(id)
    if not record or a.publications[n] > tonumber(record.publishes or '0') then
      change('ZREM', KEY.outbox, id)
      if record and record.state == 'queued' then note_published(record) end
    end
  end
  return 'ok'
end
