-- Messages of other Celery clients that no worker has claimed: to look for one on the broker, make a job of it, or note
-- that a job is to be cancelled when its message comes.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change field_of record_key set (records)
-- luacheck: read globals emit_state (events)
-- luacheck: read globals PRIORITY_SEPARATOR list_of published_key told_by (queues)
-- luacheck: read globals enter (holds)
-- luacheck: read globals adopt (claims)

-- waiting_lists: {queues}. Replies each list of these queues that has messages, and its length.
function T.waiting_lists(a)
  local replies = {}
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

local function set_of(ids)
  local set_of_them = {}
  for _, id in ipairs(ids) do set_of_them[id] = true end
  return set_of_them
end

-- Whether a text may be the message of a task with one of these ids: to decode each message would take too long. An id
-- that is written with escapes is not compared here.
local function may_tell(text, wanted)
  local _, ends = string.find(text, '"id"', 1, true)
  while ends do
    local id = string.match(text, '^%s*:%s*"([^"\\]*)"', ends + 1)
    if not id or wanted[id] then return true end
    _, ends = string.find(text, '"id"', ends + 1, true)
  end
  return false
end

-- The score of a message of the service on a list; nil if it is not the latest of its job, or of another service.
local function score_of(list, text)
  local id, publication = told_by(text)
  local score = id and redis.call('ZSCORE', published_key(list), id)
  return score and publication == tonumber(field_of(id, 'publishes')) and tonumber(score) or nil
end

-- look: {ids, list, from, count, behind}. Look for the messages of tasks with these ids among some on a list. Replies
-- {behind, id, message, score, id...}: the score to note a message as published with is that of the next one behind it,
-- so that it counts as published neither after that one nor before those ahead. `behind` is the score of the last
-- message before these, and then of the last of these, or '' if none has one.
function T.look(a)
  local wanted, texts = set_of(a.ids), redis.call('LRANGE', a.list, a.from, a.from + a.count - 1)
  local replies, behind, passed = { '' }, tonumber(a.behind), 0
  -- Look back only over those since the last that was found: the time does not grow with the square of their number.
  local function look_back(n)
    for at = n, passed + 1, -1 do
      local score = score_of(a.list, texts[at])
      if score then
        behind = score
        break
      end
    end
    passed = n
  end
  for n, text in ipairs(texts) do
    local id = may_tell(text, wanted) and told_by(text)
    if id and wanted[id] then
      look_back(n - 1)
      behind, passed = behind or NOW, n
      for _, value in ipairs({ id, text, behind }) do replies[#replies + 1] = value end
    end
  end
  look_back(#texts)
  replies[1] = behind or ''
  return replies
end

-- look_in_hands: {ids, cursor, count}. Look among the delivered messages: a worker keeps one with a countdown until
-- then. Replies {next cursor, id, message, id...}: a message as kombu keeps it.
function T.look_in_hands(a)
  local wanted = set_of(a.ids)
  local cursor, flat = unpack(redis.call('HSCAN', KEY.unacked, a.cursor, 'COUNT', a.count))
  local replies = { cursor }
  for n = 2, #flat, 2 do
    if may_tell(flat[n], wanted) then
      local readable, delivered = pcall(cjson.decode, flat[n])
      local message = readable and type(delivered) == 'table' and delivered[1]
      local headers = type(message) == 'table' and message.headers
      local id = type(headers) == 'table' and headers.id
      if id and wanted[id] then
        replies[#replies + 1] = id
        replies[#replies + 1] = flat[n]
      end
    end
  end
  return replies
end

local function is_known(id) return redis.call('EXISTS', record_key(id)) == 1 or redis.call('ZSCORE', KEY.gone, id) end

-- known: {ids}. Replies those of which there is, or was, a job.
function T.known(a)
  local replies = {}
  for _, id in ipairs(a.ids) do
    if is_known(id) then replies[#replies + 1] = id end
  end
  return replies
end

local function adopt_waiting(record, score)
  if is_known(record.id) or adopt(record) then return end
  if record.expires_at then change('ZADD', KEY.expiring, record.expires_at, record.id) end
  if record.due_at and tonumber(record.due_at) > NOW then
    enter(record, 'scheduled')
    change('ZADD', KEY.due, record.due_at, record.id)
  else
    change('SADD', KEY.lists, list_of(record))
    change('ZADD', published_key(list_of(record)), score or NOW, record.id)
    set(record, { published_at = NOW, publishes = 1 })
  end
  emit_state(record)
end

-- adopt: {jobs: [{record, score}]}. Make jobs of messages that wait on the broker, except those that are known.
function T.adopt(a)
  for _, job in ipairs(a.jobs) do adopt_waiting(job.record, job.score) end
  return 'adopted'
end

-- cancel_ahead: {ids, reason, keep_ms}. Note that jobs are to be cancelled when their messages come. Replies the ids
-- for which this was not done, as `known` does.
function T.cancel_ahead(a)
  local replies = T.known(a)
  local known = set_of(replies)
  for _, id in ipairs(a.ids) do
    if not known[id] then change('SET', KEY.cancelled_ahead .. id, a.reason, 'PX', a.keep_ms) end
  end
  return replies
end
