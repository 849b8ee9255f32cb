-- Reads of clients: a job with its steps, or a list.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals WAITS (states)
-- luacheck: read globals NOW field_of id_listed load record_key record_of (records)
-- luacheck: read globals is_paused (queues)
-- luacheck: read globals waiting_set (holds)

local STEPS_LOOKED_AT = 100

-- Whether a worker that consumes the queue of a job runs its kind; one that does not say which it runs may.
local function has_worker(record)
  for _, owner in ipairs(redis.call('ZRANGE', KEY.consumers .. record.queue, NOW, '+inf', 'BYSCORE')) do
    local kinds = redis.call('HGET', KEY.worker .. owner, 'kinds') or ''
    if kinds == '' or string.find(kinds, '"' .. record.kind .. '"', 1, true) then return true end
  end
  return false
end

-- What each hold is called for clients; `held_by` had the name of the second one for the first.
local SHOWN_AS = { concurrency_limited = 'concurrency_limited', over_rate = 'rate_limited' }

-- Why a job is waiting, and how many are before it in its queue. Nothing if it is not waiting.
local function waiting(record)
  if not WAITS[record.state] then return end
  if record.state == 'retrying' and record.given_back_at then return 'no_worker_for_kind' end
  if record.state ~= 'queued' then return 'scheduled' end
  if record.steps then
    for n, id in ipairs(cjson.decode(record.steps)) do -- the first step that waits for a worker stands for the job
      if field_of(id, 'state') == 'queued' then return waiting(load(id)) end
      if n == STEPS_LOOKED_AT then return end
    end
    return
  end
  if is_paused(record.queue) then return 'queue_paused' end
  if record.held_by then return SHOWN_AS[record.held_by] end
  if redis.call('ZCOUNT', KEY.consumers .. record.queue, NOW, '+inf') == 0 then return 'no_consumer' end
  if not has_worker(record) then return 'no_worker_for_kind' end
  return 'behind', redis.call('ZRANK', waiting_set(record), record.id)
end

-- A record for clients: its fields, and why it is waiting.
local function shown(id)
  local flat = redis.call('HGETALL', record_key(id))
  for i = 1, #flat, 2 do
    if flat[i] == 'state' and not WAITS[flat[i + 1]] then return flat end
  end
  local why, position = waiting(record_of(flat))
  if why then
    flat[#flat + 1] = 'waiting_reason'
    flat[#flat + 1] = why
  end
  if position then
    flat[#flat + 1] = 'queue_position'
    flat[#flat + 1] = position
  end
  return flat
end

-- A record for clients; for a damaged one, its id and the damage, so that the others are still shown.
local function legible(id)
  local done, record = pcall(shown, id)
  if not done then return { 'id', id, 'damage', type(record) == 'table' and record.err or tostring(record) } end
  for i = 1, #record, 2 do
    if record[i] == 'id' and record[i + 1] == id then return record end
  end
  return #record > 0 and { 'id', id, 'damage', 'It has no id.' } or record
end

-- read: {id}. Replies {'found', fields, fields of each step...} (see `legible`) | {'gone'} | {'deleted'} (gone, and the
-- rows of the result database are not to be shown) | {'unknown'}.
function T.read(a)
  local record = legible(a.id)
  if #record == 0 then
    local gone = redis.call('ZSCORE', KEY.gone, a.id)
    return { redis.call('ZSCORE', KEY.rows_deleted, a.id) and 'deleted' or gone and 'gone' or 'unknown' }
  end
  local replies = { 'found', record }
  local steps = field_of(a.id, 'steps')
  local readable, ids = pcall(cjson.decode, steps or '[]')
  if not readable or type(ids) ~= 'table' then
    return { 'found', { 'id', a.id, 'damage', 'steps is not a JSON array' } }
  end
  for _, id in ipairs(ids) do replies[#replies + 1] = legible(id) end
  return replies
end

local CHUNK = 200
local MOST_INTERSECTED = 20000 -- members: each takes 0.3 us

-- The newest members of a group of indexes from `upper` down, which are those of its keys together.
local function newest_of(group, upper, lower, most)
  local members = {}
  for _, key in ipairs(group) do
    local some = redis.call('ZRANGE', key, upper, lower, 'BYLEX', 'REV', 'LIMIT', 0, most)
    if #group == 1 then return some end
    for _, member in ipairs(some) do members[#members + 1] = member end
  end
  table.sort(members, function(one, other) return one > other end)
  for n = #members, most + 1, -1 do members[n] = nil end
  return members
end

local function size_of(group)
  local size = 0
  for _, key in ipairs(group) do size = size + redis.call('ZCARD', key) end
  return size
end

-- The smallest of some groups, and the others.
local function smallest_of(groups)
  local sizes, others = {}, {}
  for n, group in ipairs(groups) do sizes[n] = size_of(group) end
  local best = 1
  for n = 2, #sizes do
    if sizes[n] < sizes[best] then best = n end
  end
  for n, group in ipairs(groups) do
    if n ~= best then others[#others + 1] = group end
  end
  return groups[best], others, sizes[best]
end

-- Those of some members that all groups have.
local function in_all(members, groups)
  for _, group in ipairs(groups) do
    local has, left = {}, {}
    for _, key in ipairs(group) do
      for n, score in ipairs(redis.call('ZMSCORE', key, unpack(members))) do has[n] = has[n] or score end
    end
    for n, member in ipairs(members) do
      if has[n] then left[#left + 1] = member end
    end
    if #left == 0 then return left end
    members = left
  end
  return members
end

-- Whether groups of one key each have no member in common, where it does not take long to find out.
local function are_disjoint(first, size, others)
  if #first > 1 or size > MOST_INTERSECTED then return false end
  local keys = { first[1] }
  for _, group in ipairs(others) do
    if #group > 1 then return false end
    keys[#keys + 1] = group[1]
  end
  keys[#keys + 1], keys[#keys + 2] = 'LIMIT', 1
  return redis.call('ZINTERCARD', 1 + #others, unpack(keys)) == 0
end

-- list: {indexes: groups of their keys, lower, upper, limit, scan}: the jobs that are in an index of each group.
-- Reads the smallest group from the newest id down, as ids sort by time, and looks its members up in the others. After
-- `scan` look-ups the page ends. Replies {next_id, record...}; next_id is '' if no more can follow.
function T.list(a)
  local first, others, size = smallest_of(a.indexes)
  local width, found, upper, looked_up = 1, {}, a.upper, 0
  local at_once = #others == 0 and math.min(CHUNK, a.limit) or CHUNK
  for _, group in ipairs(others) do width = width + #group end
  while true do
    for _, group in ipairs(others) do -- go on at the newest job that all may have
      local next_one = newest_of(group, upper, a.lower, 1)[1]
      if not next_one then return { '', unpack(found) } end
      upper = '[' .. next_one
    end
    local members = newest_of(first, upper, a.lower, at_once)
    if #members == 0 then return { '', unpack(found) } end
    for _, member in ipairs(in_all(members, others)) do
      local record = legible(id_listed(member))
      if #record > 0 then found[#found + 1] = record end
      if #found == a.limit then return { member, unpack(found) } end
    end
    if looked_up == 0 and #found == 0 and are_disjoint(first, size, others) then return { '' } end
    looked_up = looked_up + #members * width
    if looked_up >= a.scan then return { members[#members], unpack(found) } end
    upper = '(' .. members[#members]
  end
end
