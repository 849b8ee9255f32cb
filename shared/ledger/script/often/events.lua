-- What is told of a job: the events of its stream, and what the metrics add up.

-- luacheck: read globals DURATION_BOUNDS_S (counters)
-- luacheck: read globals NOW P int (records)

local EVENTS_KEPT = 2000
local CHANGES = P .. 'changes'

-- What the metrics add up (shared/ledger/counters.py), counted in the transition and so exact; written once a call.
local counts = {}
local function count(field, n) counts[field] = (counts[field] or 0) + (n or 1) end

local function write_counts()
  for field, n in pairs(counts) do redis.call('HINCRBY', P .. 'counters', field, int(n)) end
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
  local stream = P .. 'events:' .. job_id
  local item = { 'event', event, 'at', int(NOW), 'data', data }
  if record.step then
    item[#item + 1] = 'step'
    item[#item + 1] = record.step
  end
  redis.call('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(item))
  redis.call('PUBLISH', CHANGES, job_id)
end

-- `more` is JSON text like '"reason": "..."': error documents are passed on as they came, never decoded, for
-- cjson would turn their empty arrays into objects.
local function emit_state(record, more)
  local attempt = ', "attempt": ' .. (record.attempt or '0')
  emit(record, 'state', '{"state": "' .. record.state .. '"' .. attempt .. (more and ', ' .. more or '') .. '}')
end
