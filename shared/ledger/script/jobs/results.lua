-- The results that Celery's AsyncResult reads, and error documents.

-- luacheck: read globals KEY (keys)
-- luacheck: read globals NOW change iso8601 (records)

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
