-- References of live jobs to files. A file is kept while the parameters of a job that has not ended reference it, even
-- after the retention of the job or upload that it belongs to.
--
--   references:<id>   the live jobs that reference a file of this job, step or upload; `schedule:<id>` for a schedule

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change field_of load record_key (records)

local POSTPONED_MS = 3600000

local function owners_named_by(record)
  local owners, texts = {}, { record.params or '' }
  for _, id in ipairs(record.expanded and cjson.decode(record.steps) or {}) do
    texts[#texts + 1] = field_of(id, 'params') or ''
  end
  for _, params in ipairs(texts) do
    if string.find(params, 'artifact://', 1, true) then
      for id in string.gmatch(params, 'artifact://(%x+%-%x+%-%x+%-%x+%-%x+)/') do owners[id] = true end
    end
  end
  return owners
end

-- A job is accepted, or has more steps: its parameters include those of the steps that it was accepted with.
local function refer(record)
  for id in pairs(owners_named_by(record)) do change('SADD', KEY.references .. id, record.id) end
end

-- A job has ended.
local function unrefer(record)
  for id in pairs(owners_named_by(record)) do change('SREM', KEY.references .. id, record.id) end
end

local function ids_with_steps(record)
  return { record.id, unpack(record.steps and cjson.decode(record.steps) or {}) }
end

-- Whose files a job has: its own and those of its steps. An adopted job whose id cannot own files has an owner for
-- them.
local function file_owners(record)
  local owners = ids_with_steps(record)
  owners[1] = record.file_owner or record.id
  return owners
end

local function is_referred(owners)
  for _, id in ipairs(owners) do
    if redis.call('EXISTS', KEY.references .. id) == 1 then return true end
  end
  return false
end

-- Keep a job after its retention for now. It is checked again after `for_ms`, at most an hour, and its record does not
-- expire before.
local function postpone(record, for_ms)
  change('ZADD', KEY.ended, NOW + for_ms, record.id)
  if record.file_owner then change('PEXPIRE', KEY.file_owner .. record.file_owner, 2 * POSTPONED_MS, 'GT') end
  for _, id in ipairs(ids_with_steps(record)) do change('PEXPIRE', record_key(id), 2 * POSTPONED_MS, 'GT') end
  change('PEXPIRE', KEY.events .. record.id, 2 * POSTPONED_MS, 'GT')
end

-- The files of the jobs whose steps a job reuses are kept as long as its own.
local function keep_lineage(record)
  if record.reuses ~= '1' then return end
  local retention_ms = tonumber(record.retention_ms)
  local source = record.retried_from and load(record.retried_from)
  while source do
    if redis.call('ZSCORE', KEY.ended, source.id) then
      change('ZADD', KEY.ended, 'GT', NOW + retention_ms, source.id)
    end
    for _, id in ipairs(ids_with_steps(source)) do
      change('PEXPIRE', record_key(id), retention_ms + 86400000, 'GT')
    end
    change('PEXPIRE', KEY.events .. source.id, retention_ms + 86400000, 'GT')
    source = source.retried_from and load(source.retried_from)
  end
end

-- upload: {id, retention_ms}. An upload begins: its files are deleted after this time, even if it fails.
function T.upload(a)
  change('ZADD', KEY.uploads, NOW + a.retention_ms, a.id)
  return 'ok'
end
