-- What `maintenance.cleanup_old_data` asks for: ended jobs before their retention is over, and what nobody owns.
-- With `dry_run` nothing is changed, and the replies are the same.

local CHORDS = 'celery-taskset-meta-' -- Celery: GroupResult's counters, and the size of a chord's header

local function clean(id, a)
  local record = load(id)
  if not record then return { 'unknown' } end
  local until_ms = redis.call('ZSCORE', P .. 'ended', id)
  if not FINAL[record.state] or not until_ms then return { 'live' } end
  -- The score and not the time of its end: the files of a job whose steps another one uses again stay as long as that.
  if until_ms - record.retention_ms > NOW - a.older_than_ms then return { 'young' } end
  local ids = { record.id, unpack(record.steps and cjson.decode(record.steps) or {}) }
  for _, each in ipairs(ids) do
    if redis.call('HGET', record_key(each), 'state') == 'running' then return { 'live' } end
  end
  if is_referred(ids) or redis.call('ZSCORE', P .. 'callbacks', record.id) then return { 'referred' } end
  if not a.dry_run then forget(record) end
  return { 'forgotten', unpack(ids) }
end

-- clean: {ids, older_than_ms, dry_run}: forget the jobs that ended so long ago. Replies, one a job: {'forgotten', id...}
-- (its and its steps') | {'live'} | {'young'} | {'referred'} (a live job names one of its files, or its end is still to
-- be told) | {'unknown'}.
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
