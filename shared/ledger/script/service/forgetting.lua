-- Deletion of jobs from the ledger: after their retention, on request, or for `maintenance.cleanup_old_data`; and of
-- orphaned keys and files. With `dry_run` nothing is changed, and the replies are the same.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals CELERY_STATUS FINAL (states)
-- luacheck: read globals NOW change field_of id_listed listed load record_key remove_record try (records)
-- luacheck: read globals keeps_for_rows note_deleted unwritten (results)
-- luacheck: read globals file_owners ids_with_steps is_referred (files)
-- luacheck: read globals set_aside unlist (holds)

local REMOVED_AT_ONCE = 50 -- steps of a workflow; the keeper removes the others as if they were ended jobs

-- Delete all keys of a job, but record that it existed. Returns whose files go: those of the job and of its steps.
local function forget(record)
  for _, key in ipairs({
    KEY.jobs, KEY.kind .. record.kind, KEY.queue .. record.queue, KEY.state .. record.state,
  }) do
    change('ZREM', key, listed(record))
  end
  for _, tag in ipairs(cjson.decode(record.tags)) do change('ZREM', KEY.tag .. tag, listed(record)) end
  if record.schedule then change('ZREM', KEY.schedule .. record.schedule, listed(record)) end
  change('ZREM', KEY.ended, record.id)
  if record.file_owner then change('DEL', KEY.file_owner .. record.file_owner) end
  for n, id in ipairs(ids_with_steps(record)) do
    local is_running = field_of(id, 'state') == 'running' -- a step that did not stop in time
    if is_running then
      change('ZREM', KEY.running .. field_of(id, 'queue'), id)
      change('ZREM', KEY.claims, id)
    end
    if is_running or n <= REMOVED_AT_ONCE + 1 then remove_record(id) else change('ZADD', KEY.ended, NOW, id) end
  end
  change('DEL', KEY.events .. record.id)
  change('ZREM', KEY.callbacks, record.id)
  change('ZADD', KEY.gone, NOW, record.id)
  return file_owners(record)
end

local function clean(id, a)
  local record = load(id)
  if not record then return { 'unknown' } end
  local until_ms = redis.call('ZSCORE', KEY.ended, id)
  if not FINAL[record.state] or not until_ms then return { 'live' } end
  -- Use the score and not the time of its end: it is later if another job reuses its steps and needs their
  -- files.
  if until_ms - record.retention_ms > NOW - a.older_than_ms then return { 'young' } end
  local ids = ids_with_steps(record)
  for _, each in ipairs(ids) do
    if field_of(each, 'state') == 'running' then return { 'live' } end
  end
  local owners = file_owners(record)
  if is_referred(owners) or redis.call('ZSCORE', KEY.callbacks, record.id) then return { 'referred' } end
  if not a.with_rows and unwritten(ids) > 0 and keeps_for_rows() then return { 'referred' } end
  if not a.dry_run then forget(record) end
  return { 'forgotten', unpack(owners) }
end

-- clean: {ids, older_than_ms, dry_run}: delete the jobs that ended longer ago. Replies, one per job:
-- {'forgotten', file owner...} (job and steps) | {'live'} | {'young'} | {'referred'} (a live job references its files,
-- its callback is not submitted yet, or its row is not written yet) | {'unknown'} | {'damaged'}.
function T.clean(a)
  local replies = {}
  for i, id in ipairs(a.ids) do
    local done, reply = try(clean, id, a)
    replies[i] = done and reply or { 'damaged' }
  end
  return replies
end

local function exists(id) return redis.call('EXISTS', record_key(id)) == 1 end

local function untouched(key, age_ms)
  return redis.call('PTTL', key) == -1 and redis.call('OBJECT', 'IDLETIME', key) * 1000 >= age_ms
end

-- Each function returns whether an id is stray, and how to remove it.
local STRAY = {
  -- events of a deleted job
  events = {
    function(id, age_ms)
      if exists(id) then return false end
      local last = redis.call('XREVRANGE', KEY.events .. id, '+', '-', 'COUNT', 1)[1]
      return not last or tonumber(string.match(last[1], '^%d+')) <= NOW - age_ms
    end,
    function(id) change('DEL', KEY.events .. id) end,
  },
  -- a result without a job and without a time to live, which results of other tasks have
  results = {
    function(id, age_ms) return not exists(id) and untouched(KEY.result .. id, age_ms) end,
    function(id) change('DEL', KEY.result .. id) end,
  },
  -- the counter of a chord whose body never started; the caller leaves out those of live jobs
  chords = {
    function(name, age_ms) return untouched(KEY.chord .. name, age_ms) end,
    function(name) change('DEL', KEY.chord .. name) end,
  },
  -- steps of a deleted job
  steps = {
    function(id, age_ms)
      local record = load(id)
      return record and record.job_id and not exists(record.job_id) and tonumber(record.created_at) <= NOW - age_ms
    end,
    function(id)
      unlist(load(id))
      remove_record(id)
    end,
  },
  -- files in the store that the ledger does not know; the caller checks their age
  files = {
    function(id)
      return not exists(id) and redis.call('EXISTS', KEY.file_owner .. id) == 0
        and not redis.call('ZSCORE', KEY.uploads, id) and not is_referred({ id })
    end,
    function() end,
  },
}

-- stray: {what, ids, age_ms, dry_run}. Replies the stray ids, which have been removed.
function T.stray(a)
  local is_stray, remove = unpack(STRAY[a.what])
  local found = {}
  for _, id in ipairs(a.ids) do
    local done, stray = pcall(is_stray, id, a.age_ms)
    if done and stray then
      if not a.dry_run then remove(id) end
      found[#found + 1] = id
    end
  end
  return found
end

-- unindex: {index, ids, dry_run}: remove ids without a record from an index. Replies their number.
function T.unindex(a)
  local n = 0
  for _, id in ipairs(a.ids) do
    if not exists(id_listed(id)) then
      if not a.dry_run then change('ZREM', a.index, id) end
      n = n + 1
    end
  end
  return n
end

-- discard: {id, files_ms}. Delete a damaged job from all that names it. Replies {'forgotten', id} | {'unknown'}.
function T.discard(a)
  if not exists(a.id) then return { 'unknown' } end
  local member = field_of(a.id, 'listed_as') or a.id
  set_aside(a.id, '')
  change('HDEL', KEY.set_aside, a.id)
  change('ZREM', KEY.jobs, member)
  for state in pairs(CELERY_STATUS) do change('ZREM', KEY.state .. state, member) end
  change('DEL', record_key(a.id), KEY.result .. a.id)
  change('DEL', KEY.events .. a.id)
  change('ZADD', KEY.gone, NOW, a.id)
  change('ZREM', KEY.rows, a.id)
  note_deleted(a.id)
  change('ZADD', KEY.uploads, NOW + a.files_ms, a.id)
  return { 'forgotten', a.id }
end

-- forget: {id, files_ms}. Delete an ended job now. Replies as `clean` does: 'referred' if a live job, a schedule, or a
-- later job that reuses its steps needs its files, or its callback is not submitted yet. The caller deletes the files;
-- if it does not get this reply or dies, the keeper deletes them after `files_ms`, like those of an upload.
function T.forget(a)
  local record = load(a.id)
  local until_ms = record and redis.call('ZSCORE', KEY.ended, a.id)
  local is_prolonged = until_ms and until_ms - record.retention_ms > tonumber(record.finished_at) -- see keep_lineage
  if is_prolonged then return { 'referred' } end
  local reply = clean(a.id, { older_than_ms = 0, with_rows = true })
  if reply[1] == 'forgotten' then
    note_deleted(a.id)
    for n = 2, #reply do change('ZADD', KEY.uploads, NOW + a.files_ms, reply[n]) end
  end
  return reply
end
