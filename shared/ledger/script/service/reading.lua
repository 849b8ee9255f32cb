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

local function has_tag(tags, wanted)
  for _, tag in ipairs(cjson.decode(tags)) do
    if tag == wanted then return true end
  end
  return false
end

-- Whether a job belongs to a list; a damaged one belongs to every list.
local function is_wanted(id, a)
  local read = redis.pcall('HMGET', record_key(id), 'state', 'kind', 'queue', 'tags', 'schedule')
  if read.err then return true end
  local state, kind, queue, tags, schedule = unpack(read)
  if not (state and kind and queue and tags) then return redis.call('EXISTS', record_key(id)) == 1 end
  local done, tagged = pcall(function() return not a.tag or has_tag(tags, a.tag) end)
  if not done then return true end
  return tagged and (not a.states or a.states[state]) and (not a.kind or kind == a.kind)
    and (not a.queue or queue == a.queue) and (not a.schedule or schedule == a.schedule)
end

-- list: {index: its key, states?: {state: true}, kind?, queue?, tag?, schedule?, from, to, limit, scan}
-- Reads the given index from the newest id down; ids sort by time. Replies {next_id, record...}.
function T.list(a)
  local found, upper, scanned = {}, a.upper, 0
  while #found < a.limit and scanned < a.scan do
    local ids = redis.call('ZRANGE', a.index, upper, a.lower, 'BYLEX', 'REV', 'LIMIT', 0, 200)
    if #ids == 0 then return { '', unpack(found) } end
    for _, member in ipairs(ids) do
      local id = id_listed(member)
      scanned = scanned + 1
      upper = '(' .. member
      if is_wanted(id, a) then
        found[#found + 1] = legible(id)
        if #found == a.limit then return { member, unpack(found) } end
      end
      if scanned >= a.scan then return { member, unpack(found) } end
    end
  end
  return { '', unpack(found) }
end
