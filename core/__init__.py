from featherweight.core.silence import silence

silence()
