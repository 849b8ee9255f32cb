-- The lists of the broker: publishing messages, and what is known of those on a list.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change field_of int set (records)
-- luacheck: read globals message_of (messages)

local PRIORITY_SEPARATOR = '\6\22' -- kombu.transport.redis: Channel.sep
local BAND = 4398046511104 -- 2^42 ms: larger than any time, so that each priority has a separate band of scores
local COPIES_PASSED = 10 -- maximum number of copies skipped at the head of a list

local function list_of(record)
  local redis_priority = 9 - tonumber(record.priority)
  if redis_priority == 0 then return KEY.list .. record.queue end
  return KEY.list .. record.queue .. PRIORITY_SEPARATOR .. redis_priority
end

local function published_key(list) return KEY.published .. list end

local function note_published(record)
  if record.outbox ~= '1' then -- a separate broker tracks deliveries itself
    local list = list_of(record)
    change('SADD', KEY.lists, list)
    change('ZADD', published_key(list), NOW, record.id)
  end
  set(record, { published_at = NOW, publishes = tonumber(record.publishes or '0') + 1 })
end

local function order(record) return (9 - tonumber(record.priority)) * BAND + tonumber(record.queued_at) end

local function is_paused(queue) return redis.call('HEXISTS', KEY.paused, queue) == 1 end

-- The message of a job with the number of its publication, to distinguish it from an old copy on a list. It is a
-- header, so that a worker that puts a message back keeps it. No text in JSON has the pattern: its quotes are escaped.
local function numbered(record)
  local number = '%0"celeriac_publication": ' .. record.publishes .. ', '
  return (string.gsub(message_of(record), '"headers":%s*{', number, 1))
end

-- The job id of a message (nil for a message of another service), and the number of its publication. Messages that
-- Celery publishes itself, for later steps, have no number: they are the first.
local function told_by(text)
  local readable, message = pcall(cjson.decode, text)
  local id = readable and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
  if type(id) == 'string' then return id, tonumber(message.headers.celeriac_publication) or 1 end
end

-- The score of the first message from the head of a list that is the latest of its job, not a copy and not of another
-- service, and the ids of those before it. A list is first in, first out: of the messages published earlier, only these
-- are still on it. Infinity if the list has none; nil if it is unknown, after many copies.
local function first_known(list)
  local passed = {}
  for n = 1, COPIES_PASSED do
    local text = redis.call('LINDEX', list, -n)
    if not text then return math.huge, passed end
    local id, publication = told_by(text)
    if id then
      local score = redis.call('ZSCORE', published_key(list), id)
      if score and publication == tonumber(field_of(id, 'publishes')) then return tonumber(score), passed end
      passed[id] = true
    end
  end
  return nil, passed
end

local function push(command, record)
  note_published(record)
  change(command, list_of(record), numbered(record))
end

-- Publish the message of a job. With a separate broker, add the job to the outbox; the accepting gateway publishes it
-- from there, or the keeper if the gateway fails.
local function put(record)
  if record.outbox == '1' then
    local by_gateway = record.created_at == int(NOW) -- it is being accepted; the keeper waits before it publishes
    change('ZADD', KEY.outbox, by_gateway and NOW or 0, record.id)
    return
  end
  push('LPUSH', record)
end

-- Publish a job at the head of its list, because it was there before. The keeper relies on scores in the order of the
-- list, so its score is just lower than that of the job that it overtakes, unless the caller has a score.
local function put_first(record, score)
  if record.outbox == '1' then
    change('ZADD', KEY.outbox, 1, record.id) -- no gateway publishes it, so the keeper need not wait
    return
  end
  local published = published_key(list_of(record))
  if not score then
    local overtaken = first_known(list_of(record))
    -- many copies at the head: use a score below all
    overtaken = overtaken or redis.call('ZRANGE', published, 0, 0, 'WITHSCORES')[2] or math.huge
    score = overtaken ~= math.huge and overtaken - 1
  end
  push('RPUSH', record)
  if score then change('ZADD', published, score, record.id) end
end
