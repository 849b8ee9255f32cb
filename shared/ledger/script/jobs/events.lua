-- The events of a job, and the counters of the metrics.

-- luacheck: read globals DURATION_BOUNDS_S (counters)
-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change counted int (records)

local EVENTS_KEPT = 2000

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

-- There is one stream per job, also for its steps. Every event wakes the subscribers of the channel `changes`.
local function emit(record, event, data)
  local job_id = record.job_id or record.id
  local stream = KEY.events .. job_id
  local item = { 'event', event, 'at', int(NOW), 'data', data }
  if record.step then
    item[#item + 1] = 'step'
    item[#item + 1] = record.step
  end
  change('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(item))
  change('PUBLISH', KEY.changes, job_id)
end

-- `more` is JSON text like '"reason": "..."'. Error documents are passed on as text and never decoded, because cjson
-- would turn their empty arrays into objects.
local function emit_state(record, more)
  local attempt = ', "attempt": ' .. (record.attempt or '0')
  emit(record, 'state', '{"state": "' .. record.state .. '"' .. attempt .. (more and ', ' .. more or '') .. '}')
end
