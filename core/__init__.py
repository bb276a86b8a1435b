from core.silence import silence

silence()
