-- Taking jobs out of the ledger: past their retention, on request, or as `maintenance.cleanup_old_data` asks for; and
-- what nobody owns. With `dry_run` nothing is changed, and the replies are the same.

-- luacheck: read globals FINAL META NOW P load record_key (records)
-- luacheck: read globals is_referred (files)
-- luacheck: read globals unlist (queues)

local CHORDS = 'celery-taskset-meta-' -- Celery: GroupResult's counters, and the size of a chord's header

-- Take everything of a job out of the ledger, leaving a mark that it was there. Returns its and its steps' ids.
local function forget(record)
  local ids = { record.id }
  for _, id in ipairs(record.steps and cjson.decode(record.steps) or {}) do ids[#ids + 1] = id end
  local indexes = { 'jobs', 'ended', 'kind:' .. record.kind, 'queue:' .. record.queue, 'state:' .. record.state }
  for _, name in ipairs(indexes) do
    redis.call('ZREM', P .. name, record.id)
  end
  for _, tag in ipairs(cjson.decode(record.tags)) do redis.call('ZREM', P .. 'tag:' .. tag, record.id) end
  if record.schedule then redis.call('ZREM', P .. 'schedule:' .. record.schedule, record.id) end
  for _, id in ipairs(ids) do
    local state, queue = unpack(redis.call('HMGET', record_key(id), 'state', 'queue'))
    if state == 'running' then -- a step that did not stop in time
      redis.call('ZREM', P .. 'running:' .. queue, id)
      redis.call('ZREM', P .. 'claims', id)
    end
    redis.call('DEL', record_key(id), META .. id)
  end
  redis.call('DEL', P .. 'events:' .. record.id)
  redis.call('ZREM', P .. 'callbacks', record.id)
  redis.call('ZADD', P .. 'gone', NOW, record.id)
  return ids
end

local function clean(id, a)
  local record = load(id)
  if not record then return { 'unknown' } end
  local until_ms = redis.call('ZSCORE', P .. 'ended', id)
  if not FINAL[record.state] or not until_ms then return { 'live' } end
  -- The score and not the time of its end: the files of a job whose steps another one uses again stay as long as
  -- that.
  if until_ms - record.retention_ms > NOW - a.older_than_ms then return { 'young' } end
  local ids = { record.id, unpack(record.steps and cjson.decode(record.steps) or {}) }
  for _, each in ipairs(ids) do
    if redis.call('HGET', record_key(each), 'state') == 'running' then return { 'live' } end
  end
  if is_referred(ids) or redis.call('ZSCORE', P .. 'callbacks', record.id) then return { 'referred' } end
  if not a.dry_run then forget(record) end
  return { 'forgotten', unpack(ids) }
end

-- clean: {ids, older_than_ms, dry_run}: forget the jobs that ended so long ago. Replies, one a job:
-- {'forgotten', id...} (its and its steps') | {'live'} | {'young'} | {'referred'} (a live job names one of its files or
-- its end is still to be told) | {'unknown'}.
function T.clean(a)
  local replies = {}
  for i, id in ipairs(a.ids) do replies[i] = clean(id, a) end
  return replies
end

local function exists(id) return redis.call('EXISTS', record_key(id)) == 1 end

local function untouched(key, age_ms)
  return redis.call('PTTL', key) == -1 and redis.call('OBJECT', 'IDLETIME', key) * 1000 >= age_ms
end

-- Each says whether an id is stray, and how to remove what it stands for.
local STRAY = {
  -- events of a job that is gone
  events = {
    function(id, age_ms)
      if exists(id) then return false end
      local last = redis.call('XREVRANGE', P .. 'events:' .. id, '+', '-', 'COUNT', 1)[1]
      return not last or tonumber(string.match(last[1], '^%d+')) <= NOW - age_ms
    end,
    function(id) redis.call('DEL', P .. 'events:' .. id) end,
  },
  -- a result without a job and without an end: those of others' tasks have a time to live
  results = {
    function(id, age_ms) return not exists(id) and untouched(META .. id, age_ms) end,
    function(id) redis.call('DEL', META .. id) end,
  },
  -- what Celery counted for a chord that never came to its body; the caller leaves out those of live jobs
  chords = {
    function(name, age_ms) return untouched(CHORDS .. name, age_ms) end,
    function(name) redis.call('DEL', CHORDS .. name) end,
  },
  -- steps whose job is gone
  steps = {
    function(id, age_ms)
      local record = load(id)
      return record and record.job_id and not exists(record.job_id) and tonumber(record.created_at) <= NOW - age_ms
    end,
    function(id)
      unlist(load(id))
      redis.call('DEL', record_key(id), META .. id)
    end,
  },
  -- files in the store of which the ledger knows nothing; how old they are is the caller's to know
  files = {
    function(id)
      return not exists(id) and not redis.call('ZSCORE', P .. 'uploads', id) and not is_referred({ id })
    end,
    function() end,
  },
}

-- stray: {what, ids, age_ms, dry_run}. Replies the ids that are stray, and have been removed.
function T.stray(a)
  local is_stray, remove = unpack(STRAY[a.what])
  local found = {}
  for _, id in ipairs(a.ids) do
    if is_stray(id, a.age_ms) then
      if not a.dry_run then remove(id) end
      found[#found + 1] = id
    end
  end
  return found
end

-- unindex: {index, ids, dry_run}: take ids without a record out of an index. Replies how many.
function T.unindex(a)
  local n = 0
  for _, id in ipairs(a.ids) do
    if not exists(id) then
      if not a.dry_run then redis.call('ZREM', a.index, id) end
      n = n + 1
    end
  end
  return n
end

-- forget: {id}. Take a finished job out of the ledger now. Replies as `clean` does: 'referred' where a live job, a
-- schedule, or a later job that uses its steps again needs its files, or where its end is still to be told.
function T.forget(a)
  local record = load(a.id)
  local until_ms = record and redis.call('ZSCORE', P .. 'ended', a.id)
  local is_prolonged = until_ms and until_ms - record.retention_ms > tonumber(record.finished_at) -- see keep_lineage
  if is_prolonged then return { 'referred' } end
  return clean(a.id, { older_than_ms = 0 })
end
