-- What clients ask for beside submitting, and what the gateway tells.

-- cancel: {id, reason}. Replies {'unknown'} | {'ended', state} | {'cancelled'} | {'requested'}.
function T.cancel(a)
  local record = load(a.id)
  if not record then return { 'unknown' } end
  if FINAL[record.state] then return { 'ended', record.state } end
  local document = error_document('cancelled', a.reason, '')
  if record.steps then
    settle(record, 'cancelled', { error = document })
    close_steps(record, 'cancelled', a.reason)
    return { 'cancelled' }
  end
  if record.state == 'running' then
    set(record, { cancel_requested_at = NOW, cancel_reason = a.reason })
    emit(record, 'cancel_requested', cjson.encode({ reason = a.reason }))
    redis.call('PUBLISH', P .. 'cancels', record.id)
    return { 'requested' }
  end
  settle(record, 'cancelled', { error = document })
  return { 'cancelled' }
end

-- published: {ids}. What the outbox held has reached the broker.
function T.published(a)
  for _, id in ipairs(a.ids) do
    redis.call('ZREM', P .. 'outbox', id)
    local record = load(id)
    if record and record.state == 'queued' then note_published(record) end
  end
  return 'ok'
end

-- upload: {id, retention_ms}. An upload is about to begin: its files go after this time, whether it ends well or not.
function T.upload(a)
  redis.call('ZADD', P .. 'uploads', NOW + a.retention_ms, a.id)
  return 'ok'
end

-- read: {id}. Replies {record fields...} and the fields of each step, or an empty array.
function T.read(a)
  local record = shown(a.id)
  if #record == 0 then
    local gone = redis.call('ZSCORE', P .. 'gone', a.id)
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

-- list: {index: [key...], states?: {state: true}, kind?, queue?, tag?, schedule?, from, to, limit, scan}
-- Walks the narrowest index from the newest id down; ids sort by time. Replies {next_id, record...}.
function T.list(a)
  local found, upper, scanned = {}, a.upper, 0
  while #found < a.limit and scanned < a.scan do
    local ids = redis.call('ZRANGE', P .. a.index, upper, a.lower, 'BYLEX', 'REV', 'LIMIT', 0, 200)
    if #ids == 0 then return { '', unpack(found) } end
    for _, id in ipairs(ids) do
      scanned = scanned + 1
      upper = '(' .. id
      local state, kind, queue, tags, schedule = unpack(redis.call('HMGET', record_key(id), 'state', 'kind', 'queue', 'tags', 'schedule'))
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
