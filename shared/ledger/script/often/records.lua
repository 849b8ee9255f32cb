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
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03d000+00:00', year, month, day,
    math.floor(s / 3600), math.floor(s / 60) % 60, s % 60, rest % 1000)
end

local function record_key(id) return P .. 'job:' .. id end

-- A record from the fields that Redis gave.
local function record_of(flat)
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  if record.held_by == 'rate_limited' then record.held_by = 'concurrency_limited' end -- its name until 0.1
  return record
end

local function load(id)
  local flat = redis.call('HGETALL', record_key(id))
  return #flat > 0 and record_of(flat) or nil
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

local T = {} -- the transitions, by name
