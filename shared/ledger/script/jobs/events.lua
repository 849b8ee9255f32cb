-- The events of a job, and the counters of the metrics.

-- luacheck: read globals DURATION_BOUNDS_S (counters)
-- luacheck: read globals EVENTS_KEPT (limits)
-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change counted int load set (records)

-- The counters of the metrics (shared/ledger/counters.py) are counted in the transition, so they are exact, and written
-- once per call. A field that is not a number is left as it is, so that it stops no job.
local function write_counts()
  local names, put = {}, {}
  for name in pairs(counted) do names[#names + 1] = name end
  if not names[1] then return end
  local values = redis.pcall('HMGET', KEY.counters, unpack(names))
  for i, name in ipairs(names) do
    local before = not values[i] and 0 or tonumber(values[i])
    if before then put[#put + 1], put[#put + 2] = name, int(before + counted[name]) end
  end
  redis.pcall('HSET', KEY.counters, unpack(put))
end

local function bucket(duration_s)
  for _, bound in ipairs(DURATION_BOUNDS_S) do
    if duration_s <= bound then return string.format('%g', bound) end
  end
  return '+Inf'
end

local function write_event(stream, id, ...)
  change('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, id, 'event', ...)
end

-- The first event of an accepted job needs no stream, which takes 4 kB: it is the state that the record `begins` with,
-- and its id is the time of acceptance. Nobody can be waiting for it.
local function begin_events(record) set(record, { begins = record.state }) end

-- If more happens within the millisecond of the first event, it is written to the stream, so that ids are in order.
local function write_first_event(job_id, stream)
  local job = load(job_id)
  if not job or not job.begins or NOW > tonumber(job.created_at) then return end
  if redis.call('EXISTS', stream) == 1 then return end -- the clock was set back
  local data = '{"state": "' .. job.begins .. '", "attempt": 0}'
  write_event(stream, int(job.created_at) .. '-0', 'state', 'at', int(job.created_at), 'data', data)
  set(job, { begins = false })
end

-- There is one stream per job, also for its steps. Every event wakes the subscribers of the channel `changes`.
local function emit(record, event, data)
  local job_id = record.job_id or record.id
  local stream = KEY.events .. job_id
  if NOW <= tonumber(record.created_at) then write_first_event(job_id, stream) end
  if record.step then
    write_event(stream, '*', event, 'at', int(NOW), 'data', data, 'step', record.step)
  else
    write_event(stream, '*', event, 'at', int(NOW), 'data', data)
  end
  change('PUBLISH', KEY.changes, job_id)
end

-- `more` is JSON text like '"reason": "..."'. Error documents are passed on as text and never decoded, because cjson
-- would turn their empty arrays into objects.
local function emit_state(record, more)
  local attempt = ', "attempt": ' .. (record.attempt or '0')
  emit(record, 'state', '{"state": "' .. record.state .. '"' .. attempt .. (more and ', ' .. more or '') .. '}')
end
