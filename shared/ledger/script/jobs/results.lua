-- The results that Celery's AsyncResult reads, error documents, and what is noted for the result database.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals ROWS_WAITING (limits)
-- luacheck: read globals NOW change int iso8601 last_of (records)

-- Write the result for AsyncResult; `result` and `date_done` are JSON text. Returns key and value.
local function note_celery_result(record, status, result, date_done)
  local key = KEY.result .. record.id
  local value = '{"status": "' .. status .. '", "result": ' .. result .. ', "traceback": null, "children": []'
    .. ', "date_done": ' .. (date_done or 'null') .. ', "task_id": ' .. cjson.encode(record.id) .. '}'
  change('SET', key, value, 'PX', record.retention_ms)
  return key, value
end

-- Write the result of an ended job, and publish it to waiting clients.
local function store_celery_result(record, status, result)
  local key, value = note_celery_result(record, status, result, '"' .. iso8601(NOW) .. '"')
  change('PUBLISH', key, value)
end

local function celery_exception(exc_type, module, message)
  return cjson.encode({ exc_type = exc_type, exc_module = module, exc_message = { message } })
end

local function error_document(code, message, remedy)
  local details = cjson.decode('{}') -- an empty Lua table gives the same
  return cjson.encode({ code = code, message = message, remedy = remedy, retryable = false, details = details })
end

-- Rows of the result database: what has ended is noted here until a worker has written it there.
--
--   rows          ids of the jobs and steps whose rows are to be written, by their place
--   rows_deleted  ids of the jobs whose rows are to be deleted, by their place
--   rows_wanted   the last place; exists if there is a result database
--
-- A place is the time in milliseconds, or more where the clock does not go on: of two rows of a job, the one with the
-- higher place is the later one.

-- The place of what a transition notes; nil if there is no result database.
local function row_place()
  local noted = last_of[KEY.rows_wanted]
  if noted then return noted[3] end
  local latest = redis.call('GET', KEY.rows_wanted)
  if not latest then return end
  local place = int(math.max(tonumber(latest) + 1, NOW))
  change('SET', KEY.rows_wanted, place, 'KEEPTTL')
  return place
end

-- A job or step has changed in a way that its row shows.
local function note_row(id)
  local place = row_place()
  if place then change('ZADD', KEY.rows, place, id) end
end

-- A client has deleted a job, so its rows go, too.
local function note_deleted(id)
  local place = row_place()
  if place then change('ZADD', KEY.rows_deleted, place, id) end
end

-- How many of these ids have a row that is not written yet.
local function unwritten(ids)
  local n = 0
  if redis.call('EXISTS', KEY.rows) == 0 then return n end
  for _, id in ipairs(ids) do
    if redis.call('ZSCORE', KEY.rows, id) then n = n + 1 end
  end
  return n
end

-- Whether jobs are kept until their rows are written.
local function keeps_for_rows()
  return redis.call('EXISTS', KEY.rows_wanted) == 1 and redis.call('ZCARD', KEY.rows) <= ROWS_WAITING
end
