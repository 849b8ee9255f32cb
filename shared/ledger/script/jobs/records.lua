-- The transitions of the ledger, in one library of functions, so that they can share code; every call is atomic.
--
--   arguments[1]  transition        arguments[2]  its arguments as JSON        arguments[3...]  of accept: columns
--
-- **A transition never stops half way.** Redis does not roll back, so a transition only reads and records its changes
-- with `change`. At its end all changes are checked and then written. An error before that leaves everything unchanged.
-- Records are loaded once, and `set` updates the loaded copy; other keys are read as they were before the transition.
--
-- The library is set up once, so what belongs to one call is reset by `begin`.
--
-- Records are hashes of strings. Times are milliseconds since 1970 by the server's clock: one clock for all.
-- shared/ledger/states.py has a diagram of the states; the names of keys come from shared/ledger/keys.py.

-- luacheck: read globals KEY (keys)

-- Of the current call: its milliseconds, and its microseconds, which no other call has, as each takes longer than one.
local NOW, REVISION

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

local TYPE_OF = { -- the key type of each command; other commands accept any type
  HSET = 'hash', HDEL = 'hash', HSETNX = 'hash', ZADD = 'zset', ZREM = 'zset', ZREMRANGEBYSCORE = 'zset',
  SADD = 'set', SREM = 'set', LPUSH = 'list', RPUSH = 'list', XADD = 'stream',
}
local SIZE_OF = { hash = 'HLEN', zset = 'ZCARD', set = 'SCARD', list = 'LLEN', stream = 'XLEN' }
local TAKES_MORE = { ZREM = true, SADD = true, SREM = true, LPUSH = true, RPUSH = true }
local MOST_VALUES = 4000 -- Lua unpacks up to 8,000
local LARGEST = 2 ^ 53

-- The changes of the current transition: commands in order, the last command and the required type of each key, fields
-- of records (by key; false deletes a field), and additions to the counters.
local commands, last_of, types, fields_of, counts
-- Of the current call: the additions of the transitions that are written, records by id (false for a missing one), keys
-- that were read as hashes, and what `admit_all` looks at: gates and keys that may let a job go.
local counted, loaded, hashes, freed

local function begin()
  local t = redis.call('TIME')
  NOW, REVISION = t[1] * 1000 + math.floor(t[2] / 1000), int(t[1] * 1000000 + t[2])
  commands, last_of, types, fields_of, counts = {}, {}, {}, {}, {}
  counted, loaded, hashes, freed = {}, {}, {}, {}
end

local function is_number(value, least)
  value = tonumber(value)
  return value and value >= least and value <= LARGEST
end

local function must_be_number(command, key, value, least)
  if is_number(value, least) then return end
  error(command .. ' ' .. key .. ': ' .. tostring(value) .. ' is not a number in its range', 0)
end

local function must_be_text(command, key, value)
  local found = type(value)
  if found == 'string' or found == 'number' then return end
  error(command .. ' ' .. tostring(key) .. ' lacks a value', 0)
end

-- Record a writing command. Repetitions for the same key are merged into one call.
local function change(command, key, first, second, third, ...)
  local noted = last_of[key]
  local is_more = noted and noted[1] == command and #noted < MOST_VALUES
  if TAKES_MORE[command] then
    must_be_text(command, key, first)
    if is_more then
      noted[#noted + 1] = first
      return
    end
    noted = { command, key, first }
  elseif command == 'ZADD' and first ~= 'GT' then
    must_be_number(command, key, first, -LARGEST)
    must_be_text(command, key, second)
    if is_more and noted[3] ~= 'GT' then
      local n = #noted
      noted[n + 1], noted[n + 2] = first, second
      return
    end
    noted = { command, key, first, second }
  else
    if command == 'PEXPIRE' then
      must_be_number(command, key, first, 1)
    elseif first == 'GT' or second == 'PX' then
      must_be_number(command, key, first == 'GT' and second or third, first == 'GT' and -LARGEST or 1)
    end
    noted = { command, key, first, second, third, ... }
    local given = select('#', ...)
    given = given > 0 and given + 5 or third ~= nil and 5 or second ~= nil and 4 or first ~= nil and 3 or 2
    for i = 2, given do must_be_text(command, key, noted[i]) end
  end
  commands[#commands + 1], last_of[key] = noted, noted
  types[key] = TYPE_OF[command] or types[key]
end

-- Record a writing command with many values, which are text or numbers.
local function change_alike(command, key, values)
  commands[#commands + 1], last_of[key] = { command, key, unpack(values) }, nil
  types[key] = TYPE_OF[command] or types[key]
end

-- Record the HSET of hashes that share all but some values. `put` is the command for the first one: the name and the
-- values that differ are put into it for each, so that a thousand records need no thousand tables. `texts` has the
-- values that differ, from `from` on: `step` of a hash, of which the first `own` are the first values of `put`.
local function change_hashes(keys, put, texts, from, step, own)
  commands[#commands + 1] = { keys = keys, put = put, texts = texts, from = from, step = step, own = own }
end

local function count(field, n) counts[field] = (counts[field] or 0) + (n or 1) end

local function must_be(wanted, key)
  if hashes[key] then return end
  if type(redis.pcall(SIZE_OF[wanted], key)) == 'table' then error(key .. ' is not a ' .. wanted, 0) end
end

local write_changes
do -- a function of Lua has at most 200 names
  local function write_hashes(noted)
    local put, texts, at, call = noted.put, noted.texts, noted.from, redis.call
    for _, key in ipairs(noted.keys) do
      put[2] = key
      for i = 0, noted.own - 1 do put[4 + 2 * i] = texts[at + i] end
      call(unpack(put))
      at = at + noted.step
    end
  end

  local HIDDEN = { claim_until = true, message = true, envelope = true } -- no client sees that they change

  -- Give each job that clients see otherwise from now on a new `revision`, also for a change of a step. A new job needs
  -- none: nobody has seen it.
  local function revise()
    local ids = {}
    for key, fields in pairs(fields_of) do
      for name in pairs(fields) do
        if not HIDDEN[name] then
          local id = string.sub(key, #KEY.job + 1)
          ids[loaded[id] and loaded[id].job_id or id] = true
          break
        end
      end
    end
    for id in pairs(ids) do
      local key = KEY.job .. id
      local fields = fields_of[key]
      if not fields and redis.call('EXISTS', key) == 1 then
        fields = {}
        fields_of[key] = fields
      end
      if fields and not fields.id then fields.revision = REVISION end
    end
  end

  -- Write all recorded changes or, with an error, none.
  write_changes = function()
    revise()
    for key, wanted in pairs(types) do must_be(wanted, key) end
    local records, n = {}, 0
    for key, fields in pairs(fields_of) do
      local put, drop, puts, drops = { 'HSET', key }, nil, 2, 2
      for name, value in pairs(fields) do
        if value then
          must_be_text('HSET', key, value)
          put[puts + 1], put[puts + 2] = name, value
          puts = puts + 2
        else
          drop = drop or { 'HDEL', key }
          drops = drops + 1
          drop[drops] = name
        end
      end
      if puts > MOST_VALUES then error(key .. ' has too many fields', 0) end
      must_be('hash', key)
      if puts > 2 then
        n = n + 1
        records[n] = put
      end
      if drop then
        n = n + 1
        records[n] = drop
      end
    end
    for i = 1, n do redis.call(unpack(records[i])) end
    for i = 1, #commands do
      if commands[i].keys then write_hashes(commands[i]) else redis.call(unpack(commands[i])) end
    end
    for field, more in pairs(counts) do counted[field] = (counted[field] or 0) + more end
  end
end

-- Run a transition completely or not at all. Returns whether it was done, and its reply or the error. A nested one is
-- written at once, and stays even if the outer one fails.
local function try(act, ...)
  local outer = { commands, last_of, types, fields_of, counts }
  commands, last_of, types, fields_of, counts = {}, {}, {}, {}, {}
  local done, reply = pcall(act, ...)
  local problem = reply
  if done then done, problem = pcall(write_changes) end
  commands, last_of, types, fields_of, counts = unpack(outer)
  if done then return true, reply end
  loaded = {}
  return false, type(problem) == 'table' and problem.err or tostring(problem)
end

local function record_key(id) return KEY.job .. id end

-- A record from the flat reply of HGETALL.
local function record_of(flat)
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  if record.held_by == 'rate_limited' then record.held_by = 'concurrency_limited' end -- the old name
  return record
end

local NUMBERS = { 'priority', 'retention_ms', 'created_at', 'max_crashes', 'max_retries' }
local TEXTS = { 'id', 'kind', 'queue', 'state', 'tags' }

-- Load a record. Raises an error if a required field is missing or invalid.
local function load(id)
  if loaded[id] ~= nil then return loaded[id] or nil end
  local key = record_key(id)
  local flat = redis.call('HGETALL', key)
  hashes[key] = true
  local record = #flat > 0 and record_of(flat)
  if record then
    for _, name in ipairs(TEXTS) do
      if not record[name] then error(record_key(id) .. ' has no ' .. name, 0) end
    end
    for _, name in ipairs(NUMBERS) do
      if not is_number(record[name], 0) then error(record_key(id) .. ': ' .. name .. ' is not a number', 0) end
    end
  end
  loaded[id] = record
  return record or nil
end

-- Tell `load` about a record that the transition creates or removes.
local function take_in_hand(record) loaded[record.id] = record end
local function remove_record(id)
  loaded[id] = false
  fields_of[record_key(id)] = nil
  change('ZREM', KEY.open_steps, id) -- of a step that did not end
  change('ZREM', KEY.rows, id)
  change('DEL', record_key(id), KEY.result .. id, KEY.checkpoint .. id, KEY.children .. id)
end

-- The entry of a job in the lists of clients, which are in the order of time: its id or, for an adopted job, a UUID of
-- the time of its adoption before the id that another Celery client chose.
local function listed(record) return record.listed_as or record.id end

local function id_listed(member)
  return string.sub(member, 37, 37) == '/' and string.sub(member, 38) or member
end

-- A UUID of version 7, as in shared/ledger/ids.py: the same for the same time and text.
local function time_id(at_ms, text)
  local time, bits = string.format('%012x', at_ms), redis.sha1hex(text)
  return string.format('%s-%s-7%s-8%s-%s', string.sub(time, 1, 8), string.sub(time, 9, 12), string.sub(bits, 1, 3),
    string.sub(bits, 4, 6), string.sub(bits, 7, 18))
end

-- The loaded copy of a record, or a new one for `set`.
local function hand_of(id) return loaded[id] or { id = id } end

-- One field of a record, which may be incomplete.
local function field_of(id, name)
  if loaded[id] ~= nil then return loaded[id] and loaded[id][name] end
  local value = redis.pcall('HGET', record_key(id), name)
  return type(value) == 'string' and value
end

-- Write fields of a record and update the loaded copy. A value of false deletes the field, if the record may have it.
local function set(record, fields)
  local key = record_key(record.id)
  local noted = fields_of[key]
  if not noted then
    noted = {}
    fields_of[key] = noted
  end
  local is_known = loaded[record.id] == record
  for name, value in pairs(fields) do
    if type(value) == 'number' then value = int(value) end
    if value or not is_known or record[name] ~= nil then
      noted[name] = value
      record[name] = value or nil
    end
  end
end

local T = {} -- the transitions, by name
