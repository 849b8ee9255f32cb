-- The ledger's transitions. One script, so that what two transitions share is written once; every call is atomic.
--
--   KEYS[1]  prefix of the ledger's own keys ("celeriac:")
--   KEYS[2]  prefix of Celery's results ("celery-task-meta-")
--   KEYS[3]  prefix of Celery's broker lists ("" unless global_keyprefix is set)
--   ARGV[1]  transition        ARGV[2]  its arguments as one JSON object
--
-- Records are hashes of strings. Times are milliseconds since 1970 by the server's clock: one clock for all.
-- The state machine is drawn in shared/ledger/states.py.

local P, META, LISTS = KEYS[1], KEYS[2], KEYS[3]
local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local EVENTS_KEPT = 2000
local CHANGES = P .. 'changes'
local FINAL = { succeeded = true, failed = true, cancelled = true, expired = true, quarantined = true, skipped = true }

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local NOW = now_ms()

-- Numbers go through %d or %.0f: Lua's tostring() would round a millisecond clock to 14 digits.
local function int(n) return string.format('%.0f', n) end

-- Days since 1970 to a date: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
local function iso8601(ms)
  local days, rest = math.floor(ms / 86400000), ms % 86400000
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local s = math.floor(rest / 1000)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03d000+00:00', year, month, doy - math.floor((153 * mp + 2) / 5) + 1,
    math.floor(s / 3600), math.floor(s / 60) % 60, s % 60, rest % 1000)
end

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

local function record_key(id) return P .. 'job:' .. id end

local function load(id)
  local flat = redis.call('HGETALL', record_key(id))
  if #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

-- Write fields of a record and keep the copy in hand true. A value of false deletes the field.
local function set(record, fields)
  local put, drop = {}, {}
  for name, value in pairs(fields) do
    if value == false then
      drop[#drop + 1] = name
      record[name] = nil
    else
      value = type(value) == 'number' and int(value) or value
      put[#put + 1] = name
      put[#put + 1] = value
      record[name] = value
    end
  end
  if #put > 0 then redis.call('HSET', record_key(record.id), unpack(put)) end
  if #drop > 0 then redis.call('HDEL', record_key(record.id), unpack(drop)) end
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
  emit(record, 'state', '{"state": "' .. record.state .. '", "attempt": ' .. (record.attempt or '0') .. (more and ', ' .. more or '') .. '}')
end

local function list_of(record)
  local redis_priority = 9 - tonumber(record.priority)
  if redis_priority == 0 then return LISTS .. record.queue end
  return LISTS .. record.queue .. PRIORITY_SEPARATOR .. redis_priority
end

local function published_key(list) return P .. 'published:' .. list end

local function note_published(record)
  if record.outbox ~= '1' then -- a broker elsewhere keeps its own account of what it has delivered
    local list = list_of(record)
    redis.call('SADD', P .. 'lists', list)
    redis.call('ZADD', published_key(list), NOW, record.id)
  end
  set(record, { published_at = NOW, publishes = tonumber(record.publishes or '0') + 1 })
end

local T = {} -- the transitions, by name
