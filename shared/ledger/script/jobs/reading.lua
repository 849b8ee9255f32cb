-- Reads of clients: a job with its steps, or a list.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals record_key (records)
-- luacheck: read globals shown (queues)

-- read: {id}. Replies {record fields...} and the fields of each step, or an empty array.
function T.read(a)
  local record = shown(a.id)
  if #record == 0 then
    local gone = redis.call('ZSCORE', KEY.gone, a.id)
    return { gone and 'gone' or 'unknown' }
  end
  local replies = { 'found', record }
  local steps = redis.call('HGET', record_key(a.id), 'steps')
  if steps then
    for _, id in ipairs(cjson.decode(steps)) do replies[#replies + 1] = shown(id) end
  end
  return replies
end

local function has_tag(tags, wanted)
  for _, tag in ipairs(cjson.decode(tags)) do
    if tag == wanted then return true end
  end
  return false
end

-- list: {index: its key, states?: {state: true}, kind?, queue?, tag?, schedule?, from, to, limit, scan}
-- Reads the given index from the newest id down; ids sort by time. Replies {next_id, record...}.
function T.list(a)
  local found, upper, scanned = {}, a.upper, 0
  while #found < a.limit and scanned < a.scan do
    local ids = redis.call('ZRANGE', a.index, upper, a.lower, 'BYLEX', 'REV', 'LIMIT', 0, 200)
    if #ids == 0 then return { '', unpack(found) } end
    for _, id in ipairs(ids) do
      scanned = scanned + 1
      upper = '(' .. id
      local state, kind, queue, tags, schedule =
        unpack(redis.call('HMGET', record_key(id), 'state', 'kind', 'queue', 'tags', 'schedule'))
      local tagged = state and (not a.tag or has_tag(tags, a.tag))
      if state and tagged and (not a.states or a.states[state]) and (not a.kind or kind == a.kind)
        and (not a.queue or queue == a.queue) and (not a.schedule or schedule == a.schedule) then
        found[#found + 1] = shown(id)
        if #found == a.limit then return { id, unpack(found) } end
      end
      if scanned >= a.scan then return { id, unpack(found) } end
    end
  end
  return { '', unpack(found) }
end
