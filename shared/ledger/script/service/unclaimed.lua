-- Messages of other Celery clients that no worker has claimed: to look for one on the broker, make a job of it, or note
-- that a job is to be cancelled when its message comes.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change field_of load set (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals PRIORITY_SEPARATOR enter list_of published_key told_by (queues)
-- luacheck: read globals adopt (claims)

-- waiting_lists: {queues}. Replies the number of delivered messages, then each list of these queues that has messages
-- and its length.
function T.waiting_lists(a)
  local replies = { redis.call('HLEN', KEY.unacked) }
  for _, queue in ipairs(a.queues) do
    for step = 0, 9 do
      local list = KEY.list .. queue .. (step == 0 and '' or PRIORITY_SEPARATOR .. step)
      local length = redis.call('LLEN', list)
      if length > 0 then
        replies[#replies + 1] = list
        replies[#replies + 1] = length
      end
    end
  end
  return replies
end

-- Whether a text may be the message of a task: to decode each would take too long.
local function mentions(text, needles)
  for _, needle in ipairs(needles) do
    if string.find(text, needle, 1, true) then return true end
  end
  return false
end

-- look: {id, needles, list, from, count}. Look for the message of a task among some on a list. `needles` are the ways
-- to write its id in JSON. Replies {} or {message, score}: the score to note it as published with, just below that of
-- the next message behind it.
function T.look(a)
  local texts = redis.call('LRANGE', a.list, a.from, a.from + a.count - 1)
  for n, text in ipairs(texts) do
    if mentions(text, a.needles) and told_by(text) == a.id then
      for behind = n - 1, 1, -1 do
        local id, publication = told_by(texts[behind])
        local score = id and redis.call('ZSCORE', published_key(a.list), id)
        if score and publication == tonumber(field_of(id, 'publishes')) then return { text, tonumber(score) - 1 } end
      end
      return { text, NOW }
    end
  end
  return {}
end

-- look_in_hands: {id, needles, cursor, count}. Look among the delivered messages: a worker keeps one with a countdown
-- until then. Replies {next cursor, message or ''}.
function T.look_in_hands(a)
  local cursor, flat = unpack(redis.call('HSCAN', KEY.unacked, a.cursor, 'COUNT', a.count))
  for n = 2, #flat, 2 do
    if mentions(flat[n], a.needles) then
      local readable, delivered = pcall(cjson.decode, flat[n])
      local message = readable and type(delivered) == 'table' and delivered[1]
      local headers = type(message) == 'table' and message.headers
      if type(headers) == 'table' and headers.id == a.id then return { cursor, flat[n] } end
    end
  end
  return { cursor, '' }
end

-- adopt: {record, score}. Make a job of a message that waits on the broker. Replies 'adopted', or 'known' if there is,
-- or was, a job with its id.
function T.adopt(a)
  local record = a.record
  if load(record.id) or redis.call('ZSCORE', KEY.gone, record.id) then return 'known' end
  if adopt(record) then return 'adopted' end
  if record.expires_at then change('ZADD', KEY.expiring, record.expires_at, record.id) end
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    change('ZADD', KEY.due, record.due_at, record.id)
  else
    change('SADD', KEY.lists, list_of(record))
    change('ZADD', published_key(list_of(record)), a.score or NOW, record.id)
    set(record, { published_at = NOW, publishes = 1 })
  end
  emit_state(record)
  return 'adopted'
end

-- cancel_ahead: {id, reason, keep_ms}. Note that the job is to be cancelled when its message comes. Replies 'noted', or
-- 'known' as `adopt` does.
function T.cancel_ahead(a)
  if load(a.id) or redis.call('ZSCORE', KEY.gone, a.id) then return 'known' end
  change('SET', KEY.cancelled_ahead .. a.id, a.reason, 'PX', a.keep_ms)
  return 'noted'
end
