-- What is told of a job: the events of its stream, and what the metrics add up.

-- luacheck: read globals DURATION_BOUNDS_S (counters)
-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change counted int (records)

local EVENTS_KEPT = 2000

-- What the metrics add up (shared/ledger/counters.py), counted in the transition and so exact; written once a call. A
-- counter that is none stays as it is: no job waits for it.
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

-- One stream a job; its steps write into it too. Every event wakes those who wait on the channel of changes.
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

-- `more` is JSON text like '"reason": "..."': error documents are passed on as they came, never decoded, for
-- cjson would turn their empty arrays into objects.
local function emit_state(record, more)
  local attempt = ', "attempt": ' .. (record.attempt or '0')
  emit(record, 'state', '{"state": "' .. record.state .. '"' .. attempt .. (more and ', ' .. more or '') .. '}')
end
