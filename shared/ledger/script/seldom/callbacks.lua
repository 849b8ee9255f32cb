-- Telling the end of a job: `callbacks` has the jobs whose end is to be told and whose callback is not submitted yet.

-- luacheck: read globals P (records)
-- luacheck: read globals write (submission)

-- callback: {id, job}. Submit the job that tells the end of `id`: once, whoever asks and however often.
-- Replies 'accepted' | 'known'.
function T.callback(a)
  if redis.call('ZREM', P .. 'callbacks', a.id) == 0 then return 'known' end
  write({ a.job })
  return 'accepted'
end
