"""What is done with one request, in the order in which it comes about: functions of an Interception (interception.py).

beginning → deciding → (sending_again, other_provider, obeying) → ending
"""
