"""Jobs in a Django project: add "celeriac.django" to INSTALLED_APPS.

    from celeriac.django import jobs

    job = jobs.submit("report.generate_report", {...})  # once the transaction commits

`jobs` submits, cancels and reruns, `models` keeps the references, `signals` says what became of them, `urls` takes the
callbacks. Nothing is imported here: Django imports this module before its models are ready.
"""
