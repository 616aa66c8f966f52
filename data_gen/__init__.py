"""Tasks x agents -> learning histories. Importing this package registers its environments with Gymnasium."""

from data_gen.tasks.gym_envs import register

register("icrl/DarkRoom-v0", "dark_room")
register("icrl/DarkRoomHard-v0", "dark_room", size=17, reward="once")
