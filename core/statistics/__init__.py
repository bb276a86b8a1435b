"""Statistics: functions of arrays that know nothing of limits, recipes and artifacts."""
